/*
 * vmm/role.h - the vmm process: one sandbox's machine
 */
#pragma once

/**
 * vmm_main() - main() of the role; descriptors as in vmm/config.h, argv as process_spawn() makes it
 * Return: exit status. 0: the machine ran and CTL_EXIT said how it ended; 1: it never started,
 *         CTL_EXIT (or the log, if there is no control channel) says why.
 */
int vmm_main(int argc, char **argv);
