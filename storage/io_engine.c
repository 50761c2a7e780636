/* SPDX-License-Identifier: Apache-2.0 */
/*
 * io_engine.c - see io_engine.h.
 */
#include "storage/io_engine.h"

#include "base/assert.h"
#include "storage/io_engine_internal.h"

struct err *io_engine_create(const struct io_engine_options *options, struct io_engine **out_engine)
{
    ASSERT(options->depth > 0 && options->depth <= IO_ENGINE_DEPTH_MAX);
    if (options->kind == IO_ENGINE_THREADS)
        return io_engine_threads_create(options, out_engine);

    struct err *err = io_engine_uring_create(options, out_engine);
    if (err == NULL || options->kind == IO_ENGINE_URING || err_kind(err) != ERR_STATE)
        return err;
    err_free(err); /* containers and hardened hosts forbid it: nothing to tell anybody */
    return io_engine_threads_create(options, out_engine);
}

struct err *io_engine_enter_pool(struct io_engine *engine, const struct io_engine_options *options,
                                 unsigned thread_count)
{
    if (options->sibling != NULL)
        return io_pool_join(options->sibling->pool, &engine->pool);
    return io_pool_create(thread_count, options->thread_index, &engine->pool);
}

void io_engine_destroy(struct io_engine *engine)
{
    if (engine != NULL)
        engine->ops->destroy(engine);
}
