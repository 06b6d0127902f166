// SPDX-License-Identifier: Apache-2.0
// Fuzzes what a target takes from its source: the stream itself, and - as if their checksums were right - pages, blocks
// of disks and the manifest; and what a source takes from its target, requests for pages. The first byte chooses.
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "state/migrate/blocks.h"
#include "state/migrate/precopy.h"
#include "vmm/migrate_manifest.h"

#define RAM  0x40000u
#define DISK 0x30000u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct machine *machine(void) {
    static struct machine m;
    struct error err = {0};
    if (!m.mem && (mem_create(&m.mem, &err) || mem_add_ram(m.mem, GPA(0), RAM, "ram", &err) ||
                   mem_add_ram(m.mem, GPA(2 * RAM), RAM, "ram-high", &err)))
        abort();
    return &m;
}

static void stream(const uint8_t *data, size_t size) {
    struct wire w;
    struct wire_message m;
    struct error err = {0};
    int fds[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds) || wire_init(&w, fds[1]))
        abort();
    w.greeted = size & 1; // half of them behind a greeting
    if (send(fds[0], data, size, MSG_DONTWAIT) >= 0)
        while (wire_fill(&w) == 0)
            while (wire_next(&w, &m, &err) == 1)
                if (m.len > WIRE_BODY_MAX)
                    abort();
    close(fds[0]);
    wire_fini(&w);
}

static void pages(enum wire_type type, const uint8_t *data, size_t size) {
    struct wire_message m = {.type = type, .body = data, .len = size};
    struct precopy_sink sink;
    struct error err = {0};
    if (precopy_sink_create(machine(), &sink, &err))
        abort();
    if (precopy_receive(&sink, &m, &err) != err.code)
        abort();
    precopy_sink_destroy(&sink);
}

static void blocks(const uint8_t *data, size_t size) {
    static struct block_backend disk = {.size = DISK, .fd = -1};
    struct block_backend *const disks[] = {&disk};
    struct wire_message m = {.type = WIRE_BLOCKS, .body = data, .len = size};
    struct error err = {0};
    if (disk.fd < 0 && ((disk.fd = memfd_create("disk", 0)) < 0 || ftruncate(disk.fd, DISK) < 0))
        abort();
    blocks_receive(disks, 1, &m, &err);
    if (lseek(disk.fd, 0, SEEK_END) != DISK)
        abort(); // written behind its end
}

static void request(const uint8_t *data, size_t size) {
    struct wire_message m = {.type = WIRE_REQUEST, .body = data, .len = size};
    struct wire w = {.fd = -1};
    struct precopy pc;
    struct error err = {0};
    if (precopy_create(machine(), &pc, &err))
        abort();
    for (unsigned i = 0; i < pc.count; i++)
        pc.blocks[i].todo[0] = pc.blocks[i].todo[1] = ~0ul;
    pc.left = 64 * 2 * (uint64_t)pc.count;
    precopy_request(&pc, &w, &m);
    wire_fini(&w);
    precopy_destroy(&pc);
}

static void manifest(const uint8_t *data, size_t size) {
    struct error err = {0};
    struct vm_config cfg;
    char *text = strndup((const char *)data, size);
    json_t *parsed = text ? migrate_manifest_parse(text, &err) : NULL;
    config_init(&cfg);
    if (parsed)
        migrate_manifest_config(parsed, &cfg, &err);
    config_destroy(&cfg);
    json_decref(parsed);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0)
        return 0;
    switch (data[0] % 6) {
    case 0: stream(data + 1, size - 1); break;
    case 1: pages(WIRE_PAGES, data + 1, size - 1); break;
    case 2: pages(WIRE_ZEROES, data + 1, size - 1); break;
    case 3: blocks(data + 1, size - 1); break;
    case 4: manifest(data + 1, size - 1); break;
    case 5: request(data + 1, size - 1); break;
    }
    return 0;
}
