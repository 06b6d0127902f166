// SPDX-License-Identifier: Apache-2.0
// Fuzzes the reader of a snapshot's state: sections, maps of RAM, and compressed memory. The first byte says what the
// rest is: a run of sections as it is; one whose checksums are made right; or a map of RAM in a right run, followed by
// a zstd stream.
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "state/pack.h"
#include "state/ram.h"
#include "util/crc32c.h"

#define RAM_BYTES 0x40000u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct mem *memory(void) {
    static struct mem *mem;
    struct error err = {0};
    if (!mem && (mem_create(&mem, &err) || mem_add_ram(mem, GPA(0), RAM_BYTES, "ram", &err)))
        abort();
    return mem;
}

static int file_of(const uint8_t *data, size_t size) {
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size)
        abort();
    return fd;
}

static void use(const struct sections *s, const uint8_t *stream, size_t stream_len) {
    struct error err = {0};
    struct ram_section ram;
    bool diff = false;
    uint64_t total = 0;
    for (unsigned i = 0; ram_section_get(s, i, &ram, &err) == 0; i++)
        total += ram.size;
    if (total > RAM_BYTES * 4) // a memfd of any size is made, but the fuzzer's time is short
        return;
    int packed = file_of(stream, stream_len), fd = -1;
    if (pack_expand(s, packed, &fd, &err) == 0) {
        if (ram_sections_check(s, memory(), total, &diff, &err) == 0)
            ram_load(s, memory(), fd, RAM_READ, &err);
        close(fd);
    }
    close(packed);
}

static void parse(const uint8_t *data, size_t size, const uint8_t *stream, size_t stream_len) {
    struct sections s;
    struct error err = {0};
    uint8_t *copy = malloc(size ? size : 1); // of its own, so that a byte too many is seen
    if (!copy)
        return;
    memcpy(copy, data, size);
    if (sections_parse(copy, size, &s, &err) == 0)
        use(&s, stream, stream_len);
    else if (!err.text[0])
        abort(); // refused without a reason
    sections_free(&s);
    free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct state_writer w = {0};
    struct error err = {0};
    if (size < 4)
        return 0;
    size_t cut = (size_t)data[1] << 8 | data[2];
    const uint8_t *rest = data + 3;
    size -= 3;
    cut = cut < size ? cut : size;
    if (data[0] % 2 == 0) {
        parse(rest, size, NULL, 0);
        return 0;
    }
    sections_begin(&w);
    sections_put(&w, RAM_SECTION, 0, RAM_SECTION_VERSION, rest, cut);
    if (sections_end(&w, &err) == 0)
        parse(w.buf, w.len, rest + cut, size - cut);
    state_writer_free(&w);
    return 0;
}
