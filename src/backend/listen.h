// SPDX-License-Identifier: Apache-2.0
// Sockets that somebody on this host may connect to. Phase "open"; the descriptor is the caller's, non-blocking and
// closed on exec. `what` names the socket in messages: "serial socket".
#ifndef CICADA_BACKEND_LISTEN_H
#define CICADA_BACKEND_LISTEN_H

#include <stdint.h>

#include "util/error.h"

// At a path, for the owner alone. Takes the place of a socket that nobody listens at any more, and of nothing else. The
// caller unlinks it in the end.
int listen_unix(const char *path, const char *what, int backlog, int *fd, struct error *err);

// TCP at 127.0.0.1, with TCP_NODELAY for whoever connects.
int listen_loopback(uint16_t port, const char *what, int backlog, int *fd, struct error *err);

#endif
