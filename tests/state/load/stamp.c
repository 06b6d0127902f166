// SPDX-License-Identifier: Apache-2.0
// Work of a guest whose result can be checked, for tests/state/loops.sh; compiled inside the guest.
//   stamp memory MIB          every page holds its number and how often it was written, and what follows from these
//   stamp disk FILE BLOCKS    the same with blocks of 16 KiB, past the page cache, at random places
//   stamp sum                 a number that is always the same
// One line for each round; "WRONG" in it where something is not as it was written.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PAGE_WORDS  512
#define BLOCK_WORDS 2048
#define BLOCK_BYTES (BLOCK_WORDS * 8)
#define ROUND_OPS   100

static uint64_t next(uint64_t *state) { // xorshift64
    *state ^= *state << 13;
    *state ^= *state >> 7;
    return *state ^= *state << 17;
}

static uint64_t seed_of(uint64_t number, uint32_t version) {
    return (number + 1) * 0x9e3779b97f4a7c15u ^ ((uint64_t)version << 32 | 1);
}

static void stamp(uint64_t *words, unsigned n, uint64_t number, uint32_t version) {
    uint64_t state = seed_of(number, version);
    words[0] = number;
    words[1] = version;
    for (unsigned i = 2; i < n; i++)
        words[i] = next(&state);
}

static void check(const char *what, const uint64_t *words, unsigned n, uint64_t number, uint32_t version) {
    uint64_t state = seed_of(number, version);
    int wrong = words[0] != number || words[1] != version;
    for (unsigned i = 2; i < n; i++)
        wrong |= words[i] != next(&state);
    if (wrong)
        printf("%s WRONG: at %lu version %u, there is %lu version %lu\n", what, (unsigned long)number, version,
               (unsigned long)words[0], (unsigned long)words[1]);
}

static void memory(size_t pages) {
    uint64_t *words = aligned_alloc(4096, pages * 4096), random = 88172645463325252u;
    uint32_t *versions = calloc(pages, sizeof(*versions));
    for (size_t p = 0; p < pages; p++)
        stamp(words + p * PAGE_WORDS, PAGE_WORDS, p, 0);
    for (unsigned round = 1;; round++) {
        for (size_t p = 0; p < pages; p++) {
            check("memory", words + p * PAGE_WORDS, PAGE_WORDS, p, versions[p]);
            if (next(&random) % 4 == 0)
                stamp(words + p * PAGE_WORDS, PAGE_WORDS, p, ++versions[p]);
        }
        printf("memory %u\n", round);
        usleep(100000);
    }
}

static void failed(const char *what) {
    printf("disk WRONG: %s: %m\n", what);
    exit(1);
}

static void write_block(int fd, uint64_t *buf, size_t block, uint32_t version) {
    stamp(buf, BLOCK_WORDS, block, version);
    if (pwrite(fd, buf, BLOCK_BYTES, (off_t)(block * BLOCK_BYTES)) != BLOCK_BYTES)
        failed("write");
}

static void disk(const char *path, size_t blocks) {
    uint64_t *buf = aligned_alloc(4096, BLOCK_BYTES), random = 362436069362436069u;
    uint32_t *versions = calloc(blocks, sizeof(*versions));
    int fd = open(path, O_RDWR | O_DIRECT);
    if (fd < 0)
        failed("open");
    for (size_t b = 0; b < blocks; b++)
        write_block(fd, buf, b, 0);
    for (unsigned round = 1;; round++) {
        for (unsigned i = 0; i < ROUND_OPS; i++) {
            size_t block = next(&random) % blocks;
            if (next(&random) % 2) {
                write_block(fd, buf, block, ++versions[block]);
            } else {
                if (pread(fd, buf, BLOCK_BYTES, (off_t)(block * BLOCK_BYTES)) != BLOCK_BYTES)
                    failed("read");
                check("disk", buf, BLOCK_WORDS, block, versions[block]);
            }
        }
        if (fdatasync(fd))
            failed("flush");
        printf("disk %u\n", round);
        usleep(100000);
    }
}

int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc == 3 && strcmp(argv[1], "memory") == 0)
        memory(strtoul(argv[2], NULL, 10) << 8);
    if (argc == 4 && strcmp(argv[1], "disk") == 0)
        disk(argv[2], strtoul(argv[3], NULL, 10));
    uint64_t state = 1, sum = 0;
    for (unsigned i = 0; i < 20000000; i++)
        sum += next(&state);
    printf("%lu\n", (unsigned long)sum);
    return 0;
}
