// SPDX-License-Identifier: Apache-2.0
// Talking to a running VM by its name, for the subcommands that do.
#ifndef CICADA_CLI_REMOTE_H
#define CICADA_CLI_REMOTE_H

#include <sys/types.h>

#include "vmm/control.h"

#define REMOTE_TIMEOUT_MS 10000

// The one positional argument NAME.
int remote_set_name(const char **field, const char *value, struct error *err);

// Finds the VM and connects. Fills pid (0 where it is not known).
int remote_open(const char *name, struct instance *inst, pid_t *pid, struct control_client *c, struct error *err);

// Opens, sends the request (taken over), waits for the answer, closes. *result is a new reference.
int remote_request(const char *name, json_t *request, json_t **result, struct error *err);

// Opens, sends {"action": action}, waits for the answer, closes. *result is a new reference.
int remote_call(const char *name, const char *action, json_t **result, struct error *err);

#endif
