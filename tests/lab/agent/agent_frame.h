/* SPDX-License-Identifier: Apache-2.0 */
/*
 * agent_frame.h - the frames that labd and its clients exchange over TCP.
 *
 * A client sends the command as `u32 length, bytes`; from then on both sides send frames of
 * `u8 kind, u32 length, bytes`, little endian. An empty STDIN frame is end of input; EXIT carries
 * the i32 status and is the last frame.
 */
#ifndef TESTS_LAB_AGENT_AGENT_FRAME_H
#define TESTS_LAB_AGENT_AGENT_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum agent_frame_kind {
    AGENT_FRAME_STDIN = 0,
    AGENT_FRAME_STDOUT = 1,
    AGENT_FRAME_STDERR = 2,
    AGENT_FRAME_EXIT = 3,
};

#define AGENT_COMMAND_BYTES_MAX (1u << 20)
#define AGENT_CHUNK_BYTES       65536u

/* All return false when the other side is gone. */
bool agent_read_exact(int fd, void *data, size_t len);
bool agent_write_exact(int fd, const void *data, size_t len);
bool agent_frame_send(int fd, enum agent_frame_kind kind, const void *data, uint32_t len);
bool agent_frame_receive_header(int fd, enum agent_frame_kind *out_kind, uint32_t *out_len);

#endif
