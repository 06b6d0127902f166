// SPDX-License-Identifier: Apache-2.0
// Where the other side of a migration is: "tcp:HOST:PORT" (an IPv6 address in brackets) or "unix:PATH". The command
// makes the connection, since the VM's sealed process cannot.
#ifndef CICADA_CLI_ENDPOINT_H
#define CICADA_CLI_ENDPOINT_H

#include <stdbool.h>
#include <sys/un.h>

#include "util/error.h"

struct endpoint {
    bool is_unix;
    char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
    char host[256], port[8];
};

// -EINVAL with what is expected in err.
int endpoint_parse(const char *text, struct endpoint *e, struct error *err);
// A connected socket, or negative errno with err set. Waits at most timeout_ms for each address of the host.
int endpoint_connect(const struct endpoint *e, int timeout_ms, struct error *err);

// A listening socket, or negative errno with err set. Port 0: the host chooses one.
int endpoint_listen(const struct endpoint *e, struct error *err);
// Waits for a connection; a socket, or negative errno with err set.
int endpoint_accept(const struct endpoint *e, int listener, struct error *err);
// Closes it and removes the path of a unix endpoint.
void endpoint_close(const struct endpoint *e, int listener);
// The address as endpoint_parse takes it, with the port that it really has.
void endpoint_name(const struct endpoint *e, int listener, char *buf, unsigned size);

#endif
