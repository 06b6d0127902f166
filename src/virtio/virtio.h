// SPDX-License-Identifier: Apache-2.0
// What every virtio device is: features, status, queues, configuration, life cycle. VIRTIO 1.2, chapters 2 and 3.
// A device is one const struct virtio_device_ops and a struct that embeds struct virtio_device; a transport
// (virtio_pci.c) shows it to the guest.
//
// Lock order: PCI host, device (vd->lock), backend or MSI-X. A backend is never called into with vd->lock held where
// it may call back.
#ifndef CICADA_VIRTIO_VIRTIO_H
#define CICADA_VIRTIO_VIRTIO_H

#include <pthread.h>
#include <stdatomic.h>

#include "core/machine.h"
#include "virtio/virtq.h"

#define VIRTIO_QUEUES_MAX 3
#define VIRTIO_CONFIG_MAX 64

struct virtio_device;

struct virtio_device_ops {
    const char *name;
    uint16_t id;         // VIRTIO 1.2, chapter 5
    uint32_t class_code; // PCI
    uint16_t queues;
    uint16_t queue_size[VIRTIO_QUEUES_MAX]; // powers of two
    unsigned config_len;                    // bytes, at most VIRTIO_CONFIG_MAX
    // Doorbells are handled on the event-loop thread instead of the vCPU thread that rang.
    bool doorbell_on_loop;
    uint32_t oldest_state; // version of saved states below which the device was another one to the guest; 0: none

    void (*config_read)(struct virtio_device *vd, uint8_t *buf); // all of it; vd->lock held
    // Chains may be waiting in the queue. No lock held: takes vd->lock and asks virtio_live first. Any thread.
    void (*handle_queue)(struct virtio_device *vd, unsigned queue);
    // May be NULL. As handle_queue, tried first on the vCPU thread that rang; false leaves it to the loop thread.
    bool (*try_queue)(struct virtio_device *vd, unsigned queue);
    // May be NULL. No lock held. Waits until no request is under way; no new one starts before it returns.
    void (*quiesce)(struct virtio_device *vd);
    void (*pause)(struct virtio_device *vd);  // may be NULL; of the machine, after quiesce; loop thread, no lock held
    void (*reset)(struct virtio_device *vd);  // may be NULL; after quiesce, vd->lock held
    void (*resume)(struct virtio_device *vd); // may be NULL; no lock held
    void (*save)(struct virtio_device *vd, struct state_writer *w); // may be NULL
    void (*load)(struct virtio_device *vd, struct state_reader *r); // may be NULL; overruns are checked by the caller
    void (*destroy)(struct virtio_device *vd);                      // calls virtio_device_fini and frees
};

// All called with vd->lock held, except destroy.
struct virtio_transport_ops {
    void (*notify_queue)(void *ctx, unsigned queue);
    void (*notify_config)(void *ctx);
    bool (*dma_allowed)(void *ctx);
    void (*place_doorbells)(void *ctx);     // the driver is up; again after the engine may have changed
    void (*reset)(void *ctx, bool machine); // machine: not only the device is reset
    void (*save)(void *ctx, struct state_writer *w);
    void (*load)(void *ctx, struct state_reader *r);
    void (*destroy)(void *ctx);
};

struct virtio_device {
    const struct virtio_device_ops *ops;
    struct machine *machine;
    uint64_t features; // offered; fixed after creation

    const struct virtio_transport_ops *transport; // NULL before attach
    void *transport_ctx;

    pthread_mutex_t lock; // guards the fields below, the queues and the device's own state
    uint64_t acked;       // written by the driver
    uint8_t status;
    uint8_t generation; // of the configuration
    bool paused;
    bool resetting;
    unsigned failures; // for the log
    struct virtq queues[VIRTIO_QUEUES_MAX];

    atomic_uint deferred; // queues whose doorbell waits for the loop thread
};

// ---- for devices ----
// `features`: the device's own; the ring's and VERSION_1 are added.
int virtio_device_init(struct virtio_device *vd, const struct virtio_device_ops *ops, struct machine *m,
                       uint64_t features, struct error *err);
void virtio_device_fini(struct virtio_device *vd);
// May rings be touched now? vd->lock held.
bool virtio_live(const struct virtio_device *vd);
bool virtio_has(const struct virtio_device *vd, unsigned feature); // negotiated; vd->lock held
// Shows pushed chains to the guest and interrupts it if it wants that. vd->lock held.
void virtio_publish(struct virtio_device *vd, unsigned queue);
// The driver broke a rule: NEEDS_RESET and a configuration interrupt. vd->lock held.
void virtio_fail(struct virtio_device *vd, const char *why);
// Handles the queue on the loop thread soon. Any thread.
void virtio_defer(struct virtio_device *vd, unsigned queue);

// ---- for transports; no lock held unless said ----
void virtio_doorbell(struct virtio_device *vd, unsigned queue);
void virtio_doorbell_on_loop(struct virtio_device *vd, unsigned queue); // loop thread
void virtio_set_status(struct virtio_device *vd, uint8_t status);
void virtio_queue_enable(struct virtio_device *vd, unsigned queue);                                // vd->lock held
void virtio_config_read(struct virtio_device *vd, uint64_t offset, unsigned size, uint64_t *data); // vd->lock held

// ---- the component of every virtio device; ctx is the struct virtio_device ----
void virtio_component_reset(void *ctx);
void virtio_component_pause(void *ctx);
void virtio_component_resume(void *ctx);
void virtio_component_save(void *ctx, struct state_writer *w);
int virtio_component_load(void *ctx, struct state_reader *r, struct error *err);
void virtio_component_destroy(void *ctx);

#define VIRTIO_COMPONENT_OPS(name_, version_)                                                                          \
    {                                                                                                                  \
        .name = (name_), .version = (version_), .reset = virtio_component_reset, .pause = virtio_component_pause,      \
        .resume = virtio_component_resume, .save = virtio_component_save, .load = virtio_component_load,               \
        .destroy = virtio_component_destroy,                                                                           \
    }

#endif
