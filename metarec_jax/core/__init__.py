"""What every other room builds on: types, errors, parameters, files, the terminal, the compiler."""
