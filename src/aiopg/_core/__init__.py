"""The sans-IO core: what the two ends of a store say to each other, and what the store does about it.

Nothing here waits, reads a clock, opens a socket or draws a random number: the time is the argument
`now` (monotonic seconds), chance is an argument too. So every module is a deterministic function of its
inputs, which is what lets a journal replay a store and a simulator run a whole cluster in one thread.

Modules, lowest first: `limits`, `frames`, `handshake`, `messages`, `session`, `replies`, `parts`, then the state
machines `mailboxes`, `round` and `rounds`, `groups`, and the `engine` that owns them.
"""
