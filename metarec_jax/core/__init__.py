"""Foundations of all other rooms: types, errors, parameters, files, the terminal, the compiler."""
