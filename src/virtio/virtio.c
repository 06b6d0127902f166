// SPDX-License-Identifier: Apache-2.0
// The part that all virtio devices and transports share: status machine, doorbells, failure, save and load.
//
// Invariants: no device touches a ring unless virtio_live; after a device reset has returned (status reads 0) nothing
// of the time before touches guest memory: the device is quiesced first, then the queues are forgotten.
#define LOG_UNIT "virtio"
#include "virtio/virtio.h"

#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <string.h>

#include "util/log.h"

#define BIT_OF(feature) (UINT64_C(1) << (feature))
#define FAILURES_LOGGED 8 // of one device: a guest must not be able to flood the log

static void queue_failed(void *ctx, const char *why) {
    virtio_fail(ctx, why);
}

int virtio_device_init(struct virtio_device *vd, const struct virtio_device_ops *ops, struct machine *m,
                       uint64_t features, struct error *err) {
    memset(vd, 0, sizeof(*vd));
    vd->ops = ops;
    vd->machine = m;
    vd->features =
        features | BIT_OF(VIRTIO_F_VERSION_1) | BIT_OF(VIRTIO_RING_F_INDIRECT_DESC) | BIT_OF(VIRTIO_RING_F_EVENT_IDX);
    pthread_mutex_init(&vd->lock, NULL);
    for (unsigned i = 0; i < ops->queues; i++) {
        int ret = virtq_init(&vd->queues[i], m->mem, ops->queue_size[i], queue_failed, vd);
        if (ret) {
            virtio_device_fini(vd);
            return error_set(err, ret, "create %s", ops->name);
        }
    }
    return 0;
}

void virtio_device_fini(struct virtio_device *vd) {
    if (!vd->ops)
        return;
    for (unsigned i = 0; i < vd->ops->queues; i++)
        virtq_fini(&vd->queues[i]);
    pthread_mutex_destroy(&vd->lock);
    vd->ops = NULL;
}

bool virtio_live(const struct virtio_device *vd) {
    return (vd->status & (VIRTIO_CONFIG_S_DRIVER_OK | VIRTIO_CONFIG_S_NEEDS_RESET)) == VIRTIO_CONFIG_S_DRIVER_OK &&
           !vd->paused && vd->transport && vd->transport->dma_allowed(vd->transport_ctx);
}

bool virtio_has(const struct virtio_device *vd, unsigned feature) {
    return vd->acked & BIT_OF(feature);
}

void virtio_publish(struct virtio_device *vd, unsigned queue) {
    if (virtq_publish(&vd->queues[queue]) && vd->status & VIRTIO_CONFIG_S_DRIVER_OK && vd->transport)
        vd->transport->notify_queue(vd->transport_ctx, queue);
}

void virtio_fail(struct virtio_device *vd, const char *why) {
    if (vd->failures++ < FAILURES_LOGGED)
        log_warn("%s: driver error, device needs a reset: %s", vd->ops->name, why);
    if (vd->status & VIRTIO_CONFIG_S_NEEDS_RESET)
        return;
    vd->status |= VIRTIO_CONFIG_S_NEEDS_RESET;
    // VIRTIO 1.2, 2.1.2: the notification is due only to a driver that is up.
    if (vd->status & VIRTIO_CONFIG_S_DRIVER_OK && vd->transport)
        vd->transport->notify_config(vd->transport_ctx);
}

// ---- doorbells ----

static void run_deferred(void *ctx) {
    struct virtio_device *vd = ctx;
    unsigned queues = atomic_exchange(&vd->deferred, 0);
    for (unsigned i = 0; i < vd->ops->queues; i++)
        if (queues & 1u << i)
            vd->ops->handle_queue(vd, i);
}

void virtio_defer(struct virtio_device *vd, unsigned queue) {
    // One post is enough for all doorbells until it runs.
    if (atomic_fetch_or(&vd->deferred, 1u << queue) == 0 && event_post(vd->machine->loop, run_deferred, vd) != 0)
        atomic_store(&vd->deferred, 0); // out of memory: the next doorbell tries again
}

void virtio_doorbell(struct virtio_device *vd, unsigned queue) {
    if (queue >= vd->ops->queues)
        return;
    if (vd->ops->try_queue && vd->ops->try_queue(vd, queue))
        return;
    if (vd->ops->doorbell_on_loop)
        virtio_defer(vd, queue);
    else
        vd->ops->handle_queue(vd, queue);
}

void virtio_doorbell_on_loop(struct virtio_device *vd, unsigned queue) {
    vd->ops->handle_queue(vd, queue);
}

// vd->lock held.
static void place_doorbells(struct virtio_device *vd) {
    if (vd->status & VIRTIO_CONFIG_S_DRIVER_OK && vd->transport)
        vd->transport->place_doorbells(vd->transport_ctx);
}

static void doorbell_all(struct virtio_device *vd) {
    for (unsigned i = 0; i < vd->ops->queues; i++)
        virtio_doorbell(vd, i);
}

// ---- status ----

static void virtio_reset(struct virtio_device *vd, bool machine) {
    pthread_mutex_lock(&vd->lock);
    if (vd->resetting) { // by another vCPU, which does it all
        pthread_mutex_unlock(&vd->lock);
        return;
    }
    vd->resetting = true;
    vd->status &= (uint8_t)~VIRTIO_CONFIG_S_DRIVER_OK; // no new request, no interrupt
    pthread_mutex_unlock(&vd->lock);

    if (vd->ops->quiesce)
        vd->ops->quiesce(vd);

    pthread_mutex_lock(&vd->lock);
    for (unsigned i = 0; i < vd->ops->queues; i++)
        virtq_reset(&vd->queues[i]);
    vd->acked = 0;
    vd->status = 0;
    vd->resetting = false;
    if (vd->ops->reset)
        vd->ops->reset(vd);
    if (vd->transport)
        vd->transport->reset(vd->transport_ctx, machine);
    pthread_mutex_unlock(&vd->lock);
}

// VIRTIO 1.2, 3.1.1: FEATURES_OK sticks only if we can live with what the driver chose.
static bool features_acceptable(const struct virtio_device *vd) {
    return !(vd->acked & ~vd->features) && vd->acked & BIT_OF(VIRTIO_F_VERSION_1);
}

void virtio_set_status(struct virtio_device *vd, uint8_t status) {
    if (!status) {
        virtio_reset(vd, false);
        return;
    }
    pthread_mutex_lock(&vd->lock);
    bool was_ok = vd->status & VIRTIO_CONFIG_S_DRIVER_OK;
    if (status & VIRTIO_CONFIG_S_FEATURES_OK && !(vd->status & VIRTIO_CONFIG_S_FEATURES_OK) && !features_acceptable(vd))
        status &= (uint8_t)~VIRTIO_CONFIG_S_FEATURES_OK;
    if (!(status & VIRTIO_CONFIG_S_FEATURES_OK))
        status &= (uint8_t)~VIRTIO_CONFIG_S_DRIVER_OK;
    // The driver only sets bits; NEEDS_RESET is ours and goes with a reset alone.
    if (!vd->resetting)
        vd->status |= status & (uint8_t)~VIRTIO_CONFIG_S_NEEDS_RESET;
    bool now_ok = vd->status & VIRTIO_CONFIG_S_DRIVER_OK;
    place_doorbells(vd);
    pthread_mutex_unlock(&vd->lock);
    if (now_ok && !was_ok)
        doorbell_all(vd); // buffers may have been made available before
}

void virtio_queue_enable(struct virtio_device *vd, unsigned queue) {
    if (!vd->resetting && !(vd->status & VIRTIO_CONFIG_S_NEEDS_RESET))
        virtq_enable(&vd->queues[queue], vd->acked);
}

void virtio_config_read(struct virtio_device *vd, uint64_t offset, unsigned size, uint64_t *data) {
    uint8_t buf[VIRTIO_CONFIG_MAX] = {0};
    if (offset >= vd->ops->config_len || size > vd->ops->config_len - offset)
        return;
    vd->ops->config_read(vd, buf);
    *data = 0;
    memcpy(data, buf + offset, size);
}

// ---- component ----

void virtio_component_reset(void *ctx) {
    virtio_reset(ctx, true);
}

void virtio_component_pause(void *ctx) {
    struct virtio_device *vd = ctx;
    pthread_mutex_lock(&vd->lock);
    vd->paused = true;
    pthread_mutex_unlock(&vd->lock);
    if (vd->ops->quiesce)
        vd->ops->quiesce(vd);
    if (vd->ops->pause)
        vd->ops->pause(vd);
}

void virtio_component_resume(void *ctx) {
    struct virtio_device *vd = ctx;
    pthread_mutex_lock(&vd->lock);
    vd->paused = false;
    place_doorbells(vd);
    pthread_mutex_unlock(&vd->lock);
    if (vd->ops->resume)
        vd->ops->resume(vd);
    doorbell_all(vd); // whatever was left waiting
}

void virtio_component_save(void *ctx, struct state_writer *w) {
    struct virtio_device *vd = ctx;
    pthread_mutex_lock(&vd->lock);
    state_put_u64(w, vd->acked);
    state_put_u8(w, vd->status);
    state_put_u8(w, vd->generation);
    for (unsigned i = 0; i < vd->ops->queues; i++)
        virtq_save(&vd->queues[i], w);
    if (vd->ops->save)
        vd->ops->save(vd, w);
    vd->transport->save(vd->transport_ctx, w);
    pthread_mutex_unlock(&vd->lock);
}

int virtio_component_load(void *ctx, struct state_reader *r, struct error *err) {
    struct virtio_device *vd = ctx;
    if (r->version < vd->ops->oldest_state)
        return error_set(err, -EINVAL, "the saved %s is of version %u, this program reads %u and up", vd->ops->name,
                         r->version, vd->ops->oldest_state);
    pthread_mutex_lock(&vd->lock);
    vd->acked = state_get_u64(r);
    vd->status = state_get_u8(r);
    vd->generation = state_get_u8(r);
    // Before FEATURES_OK a driver may have written anything, but then it is not up either.
    bool chosen = vd->status & (VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK);
    bool features_ok = !chosen || features_acceptable(vd);
    for (unsigned i = 0; features_ok && i < vd->ops->queues; i++)
        virtq_load(&vd->queues[i], r, vd->acked);
    if (features_ok && vd->ops->load)
        vd->ops->load(vd, r);
    if (features_ok)
        vd->transport->load(vd->transport_ctx, r);
    pthread_mutex_unlock(&vd->lock);
    if (!features_ok)
        return error_set(err, -EINVAL, "%s: the saved state uses features that this device does not offer",
                         vd->ops->name);
    return r->error ? error_set(err, -EINVAL, "%s: the saved state is truncated", vd->ops->name) : 0;
}

void virtio_component_destroy(void *ctx) {
    struct virtio_device *vd = ctx;
    if (!vd)
        return;
    virtio_component_pause(vd);
    if (vd->transport)
        vd->transport->destroy(vd->transport_ctx);
    vd->transport = NULL;
    vd->ops->destroy(vd);
}
