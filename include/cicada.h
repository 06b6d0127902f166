/* SPDX-License-Identifier: Apache-2.0 */
/* The public C API of Cicada. Handles are opaque; functions return 0 or a negative errno. */
#ifndef CICADA_H
#define CICADA_H

#ifdef __cplusplus
extern "C" {
#endif

#define CICADA_VERSION_MAJOR 0
#define CICADA_VERSION_MINOR 1
#define CICADA_VERSION_PATCH 0

/* "MAJOR.MINOR.PATCH" of the library in use; static, never NULL. Any thread. */
const char *cicada_version(void);

/* A virtual machine; nothing makes one yet. */
struct cicada_vm;

#ifdef __cplusplus
}
#endif

#endif
