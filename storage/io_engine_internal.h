/* SPDX-License-Identifier: Apache-2.0 */
/*
 * io_engine_internal.h - the engines there are.
 */
#ifndef STORAGE_IO_ENGINE_INTERNAL_H
#define STORAGE_IO_ENGINE_INTERNAL_H

#include "storage/io_engine.h"
#include "storage/io_pool.h"

/* ERR_STATE where the kernel has no io_uring, or lets us have none. */
ERR_RESULT io_engine_uring_create(const struct io_engine_options *options,
                                  struct io_engine **out_engine);
ERR_RESULT io_engine_threads_create(const struct io_engine_options *options,
                                    struct io_engine **out_engine);

/* The engine gets a place in its sibling's pool, or in one of its own with so many threads. */
ERR_RESULT io_engine_enter_pool(struct io_engine *engine, const struct io_engine_options *options,
                                unsigned thread_count);

#endif
