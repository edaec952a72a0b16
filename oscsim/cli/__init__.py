"""The command line: `entry` hears of signals, `commands` holds what the command does, each in a file of its own."""
