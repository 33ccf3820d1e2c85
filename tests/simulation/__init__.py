"""A deterministic simulator: whole clusters in one thread and in virtual time, everything in them chosen by one seed.

Server, client, groups and journal are the product's own; only what a program cannot choose for itself is replaced:

    loop  network, transport  disk      time, connections and files, as bad as they can be
    chance                              randomness and identity of the process

    plan  key_plan                      what a seed chooses before anything runs
    world  process  workload  lives     who is there and what they do; the store's lives, with a journal or without
    key_workload  key_audit             what is done with keys, in a third of the seeds; what is left of it
    faults                              what goes wrong

    history  key_history  view          what programs saw; what can be said of it
    checker  check_*                    what is wrong with it
    probes  reach                       where a run came to; where all of them must come to

    play  run                           one seed; many
    bugs  key_bugs  planted             bugs on purpose, which must be found
"""
