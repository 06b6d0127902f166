// SPDX-License-Identifier: Apache-2.0
// TLS for a migration's connection, spoken by a program of its own, cicada-tls, which lies beside this one: src/tls.
#ifndef CICADA_CLI_TLS_H
#define CICADA_CLI_TLS_H

#include <stdbool.h>

#include "util/error.h"

struct tls_options {
    const char *dir;  // of the certificates; NULL: no TLS
    const char *name; // that the other side's certificate must have; NULL: the host asked for, or any
};

// Takes net over, a connected socket, also on failure, and gives the socket behind TLS when the handshake is done; net
// itself where no TLS is asked for. Negative errno with err set. The program ends with the connection; it is no child
// of ours, and no signal of the terminal reaches it.
int tls_wrap(const struct tls_options *opt, bool server, const char *host, int net, struct error *err);

#endif
