// SPDX-License-Identifier: Apache-2.0
// Talking to a running VM; see the header.
#include "cli/remote.h"

#include <errno.h>

int remote_set_name(const char **field, const char *value, struct error *err) {
    if (*field)
        return error_set(err, -EINVAL, "unexpected argument '%.80s': one NAME is enough", value);
    *field = value;
    return 0;
}

int remote_open(const char *name, struct instance *inst, pid_t *pid, struct control_client *c, struct error *err) {
    if (!name)
        return error_set(err, -EINVAL, "the NAME of a VM is needed ('cicada ps' lists them)");
    int ret = instance_locate(name, inst, err);
    if (ret)
        return ret;
    *pid = instance_check(inst);
    if (*pid < 0)
        return error_set(err, -EINVAL, "no VM '%s' is running ('cicada ps' lists those that are)", name);
    return control_client_open(inst, c, err);
}

int remote_request(const char *name, json_t *request, json_t **result, struct error *err) {
    struct instance inst;
    struct control_client c;
    pid_t pid;
    int ret = remote_open(name, &inst, &pid, &c, err);
    if (ret == 0) {
        ret = control_client_call(&c, request, REMOTE_TIMEOUT_MS, result, err);
        control_client_close(&c);
    }
    json_decref(request);
    return ret;
}

int remote_call(const char *name, const char *action, json_t **result, struct error *err) {
    return remote_request(name, json_pack("{s:s}", "action", action), result, err);
}
