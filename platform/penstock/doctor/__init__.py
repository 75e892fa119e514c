"""The doctor: looks at one machine and the servers that it is told of, changes nothing, and says what to mend."""
