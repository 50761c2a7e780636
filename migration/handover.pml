/* SPDX-License-Identifier: Apache-2.0 */
/*
 * handover.pml - who may run the guest while it is handed over; checked by spin.
 *
 * Modelled are the four processes that act (at the source the mover and the machine, at the target
 * the session and the machine), the two records on disk, and one control connection that may break
 * at any time. The mover and the session may die at any step; so may the target's machine. A dead
 * mover comes back as `vm-migrate --settle`, a question that is asked again until it is answered.
 *
 *     never two:        both machines never run at once, and the source never runs again once the
 *                       target has run
 *     never none:       when all has come to rest, the guest runs, unless the target's machine died
 *                       after it ran, as any machine may
 *
 * Variants that must be found wrong, to show that the model can fail:
 *     -DBUG_GUESS       the source resumes when the answer to commit does not come
 *     -DBUG_NO_RECORD   the session notes 'running' after the machine runs, instead of the machine
 *                       before it runs
 *     -DBUG_EARLY_ABORT a question is answered 'aborted' while the session still lives
 */

mtype = {PREPARED, RUNNING, ABORTED, UNDECIDED};  /* the record, and answers to a question */
mtype = {RUNS, HELD, HANDED_OVER, GONE};          /* the source's machine */
mtype = {EMPTY, LOADED};                          /* the target's machine, also RUNS and GONE */

mtype source_machine = RUNS;
mtype target_machine = EMPTY;
mtype record = PREPARED;       /* durable at the target before ready is sent */
bool target_ran = false;
bool session_lives = true;
bool connection_closed = false; /* of the session to its machine */
bool resume_asked = false;

bool link_up = true;
bool ready_sent = false;
bool commit_sent = false;
bool answer_sent = false;

/* Deaths and broken links are bounded, so that there is an end to come to. */
byte deaths_left = 2;

#define TARGET_GONE (!session_lives && target_machine == GONE)

inline check_never_two()
{
    assert(!(source_machine == RUNS && target_machine == RUNS));
    assert(!(source_machine == RUNS && target_ran));
}

inline machine_runs()
{
    atomic { target_machine = RUNS; target_ran = true; check_never_two() }
}

/* Loaded by the session; runs when asked to, which stays asked when the session dies; ends when its
 * connection closes before that. */
proctype machine_at_target()
{
    target_machine == LOADED;
    if
    :: resume_asked ->
#ifndef BUG_NO_RECORD
        record = RUNNING;
#endif
        if
        :: machine_runs()
        :: atomic { deaths_left > 0 -> deaths_left--; target_machine = GONE }
        fi
    :: connection_closed && !resume_asked -> target_machine = GONE
    :: atomic { deaths_left > 0 -> deaths_left--; target_machine = GONE }
    fi
}

inline may_die()
{
    if
    :: atomic {
            deaths_left > 0 ->
            deaths_left--;
            session_lives = false;
            connection_closed = true;
            link_up = false
        };
        goto end
    :: true
    fi
}

/* Gives up: its machine ends before the record says that it never ran. */
inline abandon()
{
    connection_closed = true;
    target_machine == GONE || target_machine == RUNS;
    if
    :: atomic { record == PREPARED -> record = ABORTED }
    :: record != PREPARED
    fi
}

proctype session()
{
    target_machine = LOADED;
    may_die();
    may_die();
    ready_sent = true;
    may_die();
    if
    :: commit_sent && link_up
    :: !link_up -> abandon(); goto done
    fi;
    may_die();
    resume_asked = true;
    may_die();
    /* The machine's answer, or the end of it. */
    if
    :: target_machine == RUNS
    :: target_machine == GONE -> abandon(); goto done
    fi;
    may_die();
#ifdef BUG_NO_RECORD
    record = RUNNING;
#endif
    answer_sent = true;
done:
    atomic { session_lives = false; connection_closed = true };
end:
    skip
}

/* A question over a new connection, answered by a process of its own that holds the record's lock.
 * While the session or its machine lives, it is they who decide. */
inline ask(answer)
{
    atomic {
        answer = UNDECIDED;
        if
        :: record == RUNNING || record == ABORTED -> answer = record
#ifdef BUG_EARLY_ABORT
        :: record == PREPARED -> record = ABORTED; answer = ABORTED
#else
        :: record == PREPARED && TARGET_GONE -> record = ABORTED; answer = ABORTED
        :: record == PREPARED && !TARGET_GONE
#endif
        fi
    }
}

inline take_back()
{
    atomic { source_machine = RUNS; check_never_two() }
}

/* Until the answer is known; the same whether the mover asks or another after its death. */
inline settle()
{
    do
    :: ask(answer);
        if
        :: answer == RUNNING -> source_machine = GONE; break
        :: answer == ABORTED -> take_back(); break
        :: else -> skip
        fi
    od
}

proctype mover()
{
    mtype answer = UNDECIDED;

    source_machine = HELD;
    /* Ready, or nothing more to hope for. */
    if
    :: ready_sent && link_up
    :: !link_up -> take_back(); goto end
    fi;
    /* A mover that dies here: the machine sees its connection close, and resumes. */
    if
    :: deaths_left > 0 -> deaths_left--; link_up = false; take_back(); goto end
    :: true
    fi;
    source_machine = HANDED_OVER;
    if
    :: deaths_left > 0 -> deaths_left--; link_up = false; settle(); goto end
    :: true
    fi;
    commit_sent = true;
    if
    :: deaths_left > 0 -> deaths_left--; link_up = false; settle(); goto end
    :: true
    fi;
    if
    :: answer_sent && link_up -> source_machine = GONE
    :: !link_up ->
#ifdef BUG_GUESS
        take_back()
#else
        settle()
#endif
    fi;
end:
    skip
}

proctype network()
{
    if
    :: link_up = false
    :: true
    fi
}

/* The target's machine may die after it ran, as machines do. */
proctype misfortune()
{
    if
    :: atomic { target_machine == RUNS && deaths_left > 0 -> deaths_left--; target_machine = GONE }
    :: true
    fi
}

init
{
    atomic { run session(); run machine_at_target(); run mover(); run network(); run misfortune() }
}

/* Where all comes to rest: somebody runs the guest, or it ran at the target and that machine died
 * (one that died between the record and its first step is of that kind). */
#define SOMEBODY_RUNS (source_machine == RUNS || target_machine == RUNS)
#define DIED_THERE    (record == RUNNING && target_machine == GONE && source_machine == GONE)

ltl never_none { <>[] (SOMEBODY_RUNS || DIED_THERE) }
