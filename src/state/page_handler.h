// SPDX-License-Identifier: Apache-2.0
// Guest memory that a process of the user's serves, page by page, by Firecracker's protocol ("Handling snapshot memory
// loading"): it listens on a Unix socket and gets one message there, with a userfaultfd by SCM_RIGHTS and a JSON array
// of regions: base_host_virt_addr, size, offset (of the region in the file `memory`), page_size, and page_size_kib,
// the same in bytes under its old name. It then reads faults from the userfaultfd and answers with UFFDIO_COPY.
//
// A guest whose handler dies can neither go on nor be stopped: threads wait for pages inside the kernel. So a thread of
// its own watches the handler, and reports its end where the connection is closed and the process that listened has
// ended. (A handler that only closes the connection, as Firecracker's may, goes on.)
#ifndef CICADA_STATE_PAGE_HANDLER_H
#define CICADA_STATE_PAGE_HANDLER_H

#include "core/mem.h"
#include "state/sections.h"

struct page_handler;

// Makes all RAM of mem lazy and hands it to the handler at `path`. sections: of the snapshot, which tell the offsets;
// checked against mem by ram_sections_check. kernel: as of mem_lazy_open. Phase "open"; waits until the first page has
// come. Negative errno with err set; -ETIMEDOUT where it does not come.
int page_handler_connect(const char *path, const struct sections *sections, struct mem *mem, bool kernel,
                         struct page_handler **h, struct error *err);
// Starts the watch, with the vCPUs' threads. lost(ctx, why) is called on it at most once; it must end the process.
int page_handler_watch(struct page_handler *h, void (*lost)(void *ctx, const char *why), void *ctx, struct error *err);
// Ends the watch and hangs up. While mem exists still; NULL is legal.
void page_handler_destroy(struct page_handler *h);

#endif
