/* SPDX-License-Identifier: Apache-2.0 */
/*
 * control_calls.c - one function for each call of the control protocol.
 * Tested by: machine_fake_test.c
 */
#include <stdbool.h>
#include <string.h>

#include "base/checked_math.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "control/control_client.h"

static void reply_free(Ferry__ControlReply *reply)
{
    if (reply != NULL)
        ferry__control_reply__free_unpacked(reply, NULL);
}
DEFINE_CLEANUP(reply, Ferry__ControlReply, reply_free)

static Ferry__ControlNothing nothing = FERRY__CONTROL_NOTHING__INIT;

/* All members of the request's union are pointers to messages: which one is set, the case says. */
static Ferry__ControlRequest bare_request(Ferry__ControlRequest__CallCase call)
{
    Ferry__ControlRequest request = FERRY__CONTROL_REQUEST__INIT;
    request.call_case = call;
    request.status = &nothing;
    return request;
}

static struct err *call_for(struct control_client *client, Ferry__ControlRequest *request,
                            Ferry__ControlReply__ResultCase expected,
                            Ferry__ControlReply **out_reply)
{
    CLEANUP(cleanup_reply) Ferry__ControlReply *reply = NULL;
    TRY(control_client_call(client, request, NULL, 0, NULL, &reply));
    if (reply->result_case != expected)
        return err_new(ERR_INVALID, "the machine answers call %d with %d, not with %d",
                       (int)request->call_case, (int)reply->result_case, (int)expected);
    *out_reply = TAKE_PTR(reply);
    return NULL;
}

static struct err *call_done(struct control_client *client, Ferry__ControlRequest *request)
{
    CLEANUP(cleanup_reply) Ferry__ControlReply *reply = NULL;
    return call_for(client, request, FERRY__CONTROL_REPLY__RESULT_DONE, &reply);
}

static struct err *call_bare(struct control_client *client, Ferry__ControlRequest__CallCase call)
{
    Ferry__ControlRequest request = bare_request(call);
    return call_done(client, &request);
}

static struct err *call_with_fds(struct control_client *client, Ferry__ControlRequest *request,
                                 const int *fds, size_t fd_count)
{
    CLEANUP(cleanup_reply) Ferry__ControlReply *reply = NULL;
    return control_client_call(client, request, fds, fd_count, NULL, &reply);
}

struct err *control_status(struct control_client *client, Ferry__ControlReply **out_reply)
{
    Ferry__ControlRequest request = bare_request(FERRY__CONTROL_REQUEST__CALL_STATUS);
    return call_for(client, &request, FERRY__CONTROL_REPLY__RESULT_STATUS, out_reply);
}

struct err *control_wait_entered(struct control_client *client, uint64_t *out_entered_ns)
{
    uint64_t deadline_ns = clock_monotonic_ns() + NS_PER_S;
    uint64_t entered_ns = 0;

    while (entered_ns == 0 && clock_monotonic_ns() < deadline_ns) {
        CLEANUP(cleanup_reply) Ferry__ControlReply *reply = NULL;
        TRY(control_status(client, &reply));
        entered_ns = reply->status->entered_ns;
    }
    *out_entered_ns = entered_ns;
    return NULL;
}

struct err *control_describe(struct control_client *client, Ferry__ControlReply **out_reply)
{
    Ferry__ControlRequest request = bare_request(FERRY__CONTROL_REQUEST__CALL_DESCRIBE);
    return call_for(client, &request, FERRY__CONTROL_REPLY__RESULT_DESCRIPTION, out_reply);
}

struct err *control_pause(struct control_client *client, bool hold, uint64_t *out_paused_ns)
{
    Ferry__ControlPause pause = FERRY__CONTROL_PAUSE__INIT;
    Ferry__ControlRequest request = bare_request(FERRY__CONTROL_REQUEST__CALL_PAUSE);
    pause.hold = hold;
    request.pause = &pause;

    CLEANUP(cleanup_reply) Ferry__ControlReply *reply = NULL;
    TRY(call_for(client, &request, FERRY__CONTROL_REPLY__RESULT_PAUSED, &reply));
    if (out_paused_ns != NULL)
        *out_paused_ns = reply->paused->paused_ns;
    return NULL;
}

struct err *control_hold(struct control_client *client, uint64_t *out_paused_ns,
                         bool *out_was_paused)
{
    Ferry__ControlPause pause = FERRY__CONTROL_PAUSE__INIT;
    Ferry__ControlRequest request = bare_request(FERRY__CONTROL_REQUEST__CALL_PAUSE);
    pause.hold = true;
    pause.or_paused = true;
    request.pause = &pause;

    CLEANUP(cleanup_reply) Ferry__ControlReply *reply = NULL;
    TRY(call_for(client, &request, FERRY__CONTROL_REPLY__RESULT_PAUSED, &reply));
    *out_paused_ns = reply->paused->paused_ns;
    *out_was_paused = reply->paused->was_paused;
    return NULL;
}

struct err *control_resume(struct control_client *client)
{
    Ferry__ControlResume resume = FERRY__CONTROL_RESUME__INIT;
    Ferry__ControlRequest request = bare_request(FERRY__CONTROL_REQUEST__CALL_RESUME);
    request.resume = &resume;
    return call_done(client, &request);
}

struct err *control_resume_recorded(struct control_client *client, int record_fd,
                                    const char *record)
{
    Ferry__ControlResume resume = FERRY__CONTROL_RESUME__INIT;
    Ferry__ControlRequest request = bare_request(FERRY__CONTROL_REQUEST__CALL_RESUME);
    resume.record = (ProtobufCBinaryData){.len = strlen(record), .data = (uint8_t *)record};
    request.resume = &resume;
    return call_with_fds(client, &request, &record_fd, 1);
}

struct err *control_power_button(struct control_client *client)
{
    return call_bare(client, FERRY__CONTROL_REQUEST__CALL_POWER_BUTTON);
}

struct err *control_reset(struct control_client *client)
{
    return call_bare(client, FERRY__CONTROL_REQUEST__CALL_RESET);
}

struct err *control_quit(struct control_client *client, const char *reason)
{
    Ferry__ControlQuit quit = FERRY__CONTROL_QUIT__INIT;
    Ferry__ControlRequest request = bare_request(FERRY__CONTROL_REQUEST__CALL_QUIT);
    quit.reason = (char *)reason;
    request.quit = &quit;
    return call_done(client, &request);
}

struct err *control_console(struct control_client *client, int *out_fd)
{
    CLEANUP(cleanup_reply) Ferry__ControlReply *reply = NULL;
    Ferry__ControlRequest request = bare_request(FERRY__CONTROL_REQUEST__CALL_CONSOLE);
    struct control_fds fds = {0};
    TRY(control_client_call(client, &request, NULL, 0, &fds, &reply));
    if (fds.count == 1) {
        *out_fd = fds.fds[0];
        return NULL;
    }
    for (size_t i = 0; i < fds.count; i++)
        close(fds.fds[i]);
    return err_new(ERR_INVALID, "the machine sends %zu descriptors for its console", fds.count);
}

struct err *control_harvest(struct control_client *client, uint64_t first_page, uint64_t page_count,
                            uint64_t *out_dirty_pages)
{
    Ferry__ControlHarvest harvest = FERRY__CONTROL_HARVEST__INIT;
    Ferry__ControlRequest request = bare_request(FERRY__CONTROL_REQUEST__CALL_HARVEST);
    harvest.first_page = first_page;
    harvest.page_count = page_count;
    request.harvest = &harvest;

    CLEANUP(cleanup_reply) Ferry__ControlReply *reply = NULL;
    TRY(call_for(client, &request, FERRY__CONTROL_REPLY__RESULT_HARVESTED, &reply));
    if (out_dirty_pages != NULL)
        *out_dirty_pages = reply->harvested->dirty_pages;
    return NULL;
}

struct err *control_return_memory(struct control_client *client)
{
    return call_bare(client, FERRY__CONTROL_REQUEST__CALL_RETURN_MEMORY);
}

struct err *control_save_state(struct control_client *client, Ferry__ControlReply **out_reply)
{
    Ferry__ControlRequest request = bare_request(FERRY__CONTROL_REQUEST__CALL_SAVE_STATE);
    return call_for(client, &request, FERRY__CONTROL_REPLY__RESULT_STATE, out_reply);
}

struct err *control_mark_cut(struct control_client *client)
{
    return call_bare(client, FERRY__CONTROL_REQUEST__CALL_MARK_CUT);
}

struct err *control_keep_tracking(struct control_client *client, const char *snapshot)
{
    Ferry__ControlKeepTracking keep = FERRY__CONTROL_KEEP_TRACKING__INIT;
    Ferry__ControlRequest request = bare_request(FERRY__CONTROL_REQUEST__CALL_KEEP_TRACKING);
    keep.snapshot = (char *)snapshot;
    request.keep_tracking = &keep;
    return call_done(client, &request);
}

struct err *control_prepare_disks(struct control_client *client)
{
    Ferry__ControlPrepareDisks prepare = FERRY__CONTROL_PREPARE_DISKS__INIT;
    Ferry__ControlRequest request = bare_request(FERRY__CONTROL_REQUEST__CALL_PREPARE_DISKS);
    request.prepare_disks = &prepare;
    return call_done(client, &request);
}

struct err *control_limit_disk(struct control_client *client, const char *disk,
                               const uint64_t *requests_per_second,
                               const uint64_t *bytes_per_second)
{
    Ferry__ControlRate requests = FERRY__CONTROL_RATE__INIT;
    Ferry__ControlRate bytes = FERRY__CONTROL_RATE__INIT;
    Ferry__ControlLimitDisk limit = FERRY__CONTROL_LIMIT_DISK__INIT;
    Ferry__ControlRequest request = bare_request(FERRY__CONTROL_REQUEST__CALL_LIMIT_DISK);
    limit.disk = (char *)(uintptr_t)disk;
    if (requests_per_second != NULL) {
        requests.per_second = *requests_per_second;
        limit.requests = &requests;
    }
    if (bytes_per_second != NULL) {
        bytes.per_second = *bytes_per_second;
        limit.bytes = &bytes;
    }
    request.limit_disk = &limit;
    return call_done(client, &request);
}

struct err *control_begin_copy(struct control_client *client, const char *disk, const char *tracker)
{
    Ferry__ControlBeginCopy begin = FERRY__CONTROL_BEGIN_COPY__INIT;
    Ferry__ControlRequest request = bare_request(FERRY__CONTROL_REQUEST__CALL_BEGIN_COPY);
    begin.disk = (char *)(uintptr_t)disk;
    begin.tracker = (char *)(uintptr_t)tracker;
    request.begin_copy = &begin;
    return call_done(client, &request);
}

struct err *control_grow_disk(struct control_client *client, const char *disk, uint64_t bytes,
                              bool is_more, uint64_t *out_virtual_bytes)
{
    Ferry__ControlGrowDisk grow = FERRY__CONTROL_GROW_DISK__INIT;
    Ferry__ControlRequest request = bare_request(FERRY__CONTROL_REQUEST__CALL_GROW_DISK);
    Ferry__ControlReply *reply = NULL;
    grow.disk = (char *)(uintptr_t)disk;
    grow.bytes = bytes;
    grow.is_more = is_more;
    request.grow_disk = &grow;
    TRY(call_for(client, &request, FERRY__CONTROL_REPLY__RESULT_DISK_SIZE, &reply));
    *out_virtual_bytes = reply->disk_size->virtual_bytes;
    ferry__control_reply__free_unpacked(reply, NULL);
    return NULL;
}

struct err *control_swap_layers(struct control_client *client, const char *disk, const char *path)
{
    Ferry__ControlSwapLayers swap = FERRY__CONTROL_SWAP_LAYERS__INIT;
    Ferry__ControlRequest request = bare_request(FERRY__CONTROL_REQUEST__CALL_SWAP_LAYERS);
    swap.disk = (char *)(uintptr_t)disk;
    swap.path = (char *)(uintptr_t)path;
    request.swap_layers = &swap;
    return call_done(client, &request);
}

struct err *control_freeze_disks(struct control_client *client, Ferry__ControlReply **out_reply)
{
    Ferry__ControlRequest request = bare_request(FERRY__CONTROL_REQUEST__CALL_FREEZE_DISKS);
    return call_for(client, &request, FERRY__CONTROL_REPLY__RESULT_DISKS, out_reply);
}

struct err *control_hand_over(struct control_client *client, const char *target,
                              const uint8_t session[16])
{
    uint8_t session_copy[16];
    memcpy(session_copy, session, sizeof(session_copy));
    Ferry__ControlHandOver hand_over = FERRY__CONTROL_HAND_OVER__INIT;
    Ferry__ControlRequest request = bare_request(FERRY__CONTROL_REQUEST__CALL_HAND_OVER);
    hand_over.target = (char *)target;
    hand_over.session.data = session_copy;
    hand_over.session.len = sizeof(session_copy);
    request.hand_over = &hand_over;
    return call_done(client, &request);
}

struct err *control_take_back(struct control_client *client)
{
    return call_bare(client, FERRY__CONTROL_REQUEST__CALL_TAKE_BACK);
}

struct err *control_configure(struct control_client *client, Ferry__MachineDescription *description,
                              bool take_identity, const int *tap_fds, size_t tap_fd_count)
{
    Ferry__ControlConfigure configure = FERRY__CONTROL_CONFIGURE__INIT;
    Ferry__ControlRequest request = bare_request(FERRY__CONTROL_REQUEST__CALL_CONFIGURE);
    configure.description = description;
    configure.take_identity = take_identity;
    request.configure = &configure;
    return call_with_fds(client, &request, tap_fds, tap_fd_count);
}

struct err *control_load_state(struct control_client *client, Ferry__MachineState *state)
{
    Ferry__ControlLoadState load = FERRY__CONTROL_LOAD_STATE__INIT;
    Ferry__ControlRequest request = bare_request(FERRY__CONTROL_REQUEST__CALL_LOAD_STATE);
    load.state = state;
    request.load_state = &load;
    return call_done(client, &request);
}

struct err *control_memory_source(struct control_client *client, uint64_t index_checksum,
                                  const int *fds, size_t fd_count)
{
    Ferry__ControlMemorySource source = FERRY__CONTROL_MEMORY_SOURCE__INIT;
    Ferry__ControlRequest request = bare_request(FERRY__CONTROL_REQUEST__CALL_MEMORY_SOURCE);
    source.file_count = fd_count == 0 ? 0 : (uint32_t)(fd_count - 1);
    source.index_checksum = index_checksum;
    request.memory_source = &source;
    return call_with_fds(client, &request, fds, fd_count);
}

struct err *control_check_disks(struct control_client *client)
{
    return call_bare(client, FERRY__CONTROL_REQUEST__CALL_CHECK_DISKS);
}
