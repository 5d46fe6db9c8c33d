/* One job and all who may write to it: workers, the tenders that take over from them, an operator, and whoever rolls
   the store back. What is modelled, what is shown and how to run it: ../model.md.

   Time is not modelled. What a clock decides (a lease lapses, a late call arrives) may happen at any step. */

#ifndef WORKERS
#define WORKERS 2
#endif
#ifndef TENDERS
#define TENDERS 1
#endif

/* The policy of the job. */
#ifndef MAX_ATTEMPTS
#define MAX_ATTEMPTS 2
#endif
#ifndef MAX_CRASHES
#define MAX_CRASHES 2
#endif
#ifndef FALLBACKS
#define FALLBACKS 0
#endif
#define AT_MOST_ONCE (MAX_ATTEMPTS == 1 && MAX_CRASHES == 0)
#define CRASHES_ALLOWED (MAX_CRASHES > 1 -> MAX_CRASHES : 1)    /* 0 and 1 both bury at the first */

/* How often the surroundings may interfere before they leave the job in peace. */
#ifndef DEATHS
#define DEATHS 1
#endif
#ifndef LAPSES
#define LAPSES 1
#endif
#ifndef RELEASES
#define RELEASES 1
#endif
#ifndef CANCELS
#define CANCELS 0
#endif
#ifndef KICKS
#define KICKS 0
#endif
#ifndef ROLLBACKS
#define ROLLBACKS 0
#endif

/* What the store compares before it lets a claim write. The last is what penstock does; the others must go wrong. */
#if defined(NOFENCE)
#define HOLDS(claim) (store.state == running)
#elif defined(NUMBER_ALONE)
#define HOLDS(claim) (store.state == running && store.number == claim.number)
#elif defined(NOCHECK)
#define HOLDS(claim) true
#else
#define HOLDS(claim) (store.state == running && store.number == claim.number && store.token == claim.token)
#endif

mtype:state = { ready, running, succeeded, cancelled, buried };
mtype:ending = { success, failure, crash, loss, release, stop };
mtype:fate = { crashed, lost, released };

/* What the store keeps of the job. */
typedef Store {
    mtype:state state;
    byte number;                /* of the last claim */
    byte token;                 /* of the last claim */
    bool deserted;              /* whoever held the claim is dead, or its lease was voided */
    mtype:fate fate;            /* what was seen of the end of the process that ran it; 0: nothing */
    byte failures, crashes, stage;
    bool suspect, cancel;
    /* Not part of a real store, but rolled back with it: what the properties speak of. */
    byte starts;                /* attempts that began since the job was added or brought back */
    byte asked_at;              /* the token that was current when a cancellation was asked for; 0: not asked */
};

/* What a worker or a tender holds, and the change that it delivers. */
typedef Claim {
    byte number, token, failures, crashes, stage;
    bool suspect, cancel, started;
};
typedef Change {
    mtype:state next;
    byte failures, crashes, stage;
    bool suspect;
};

Store store, kept;
byte tokens;                    /* drawn so far; a random token is one that was never drawn before, in no timeline */
byte reopened;                  /* how often a person or a rollback has brought the job back */
byte deaths = DEATHS, lapses = LAPSES, releases = RELEASES;

#define ended (store.state == succeeded || store.state == cancelled || store.state == buried)

/* -- what the store does, each in one step ------------------------------------------------------------------------ */

inline draw_fence(claim) {
    store.number++;
    tokens++;
    store.token = tokens;
    claim.number = store.number;
    claim.token = store.token;
    claim.failures = store.failures;
    claim.crashes = store.crashes;
    claim.stage = store.stage;
    claim.suspect = store.suspect;
    claim.cancel = store.cancel;
    claim.started = false
}

inline take(claim) {
    store.state = running;
    store.deserted = false;
    store.fate = 0;
    draw_fence(claim);
    printf("%d claims under %d.%d\n", _pid, claim.number, claim.token)
}

/* What was seen of a claim still holds when it is taken over once more. */
inline take_over(claim) {
    if
    :: store.fate == 0 -> store.fate = lost
    :: else
    fi;
    store.deserted = false;
    draw_fence(claim);
    printf("%d takes over under %d.%d\n", _pid, claim.number, claim.token)
}

/* With new chances, and a new life for the properties. */
inline bring_back() {
    store.state = ready;
    store.failures = 0;
    store.crashes = 0;
    store.suspect = false;
    store.starts = 0;
    reopened++;
    printf("%d brings it back\n", _pid)
}

inline deliver(claim, change) {
    d_step {
        if
        :: HOLDS(claim) ->
#ifndef NOCHECK
            assert(store.token == claim.token);         /* nobody writes for a claim that was handed on */
#endif
            printf("%d delivers under %d.%d: written\n", _pid, claim.number, claim.token);
            store.state = change.next;
            store.failures = change.failures;
            store.crashes = change.crashes;
            store.stage = change.stage;
            store.suspect = change.suspect;
            store.deserted = false;
            store.fate = 0;
            assert(store.failures <= MAX_ATTEMPTS && store.crashes <= CRASHES_ALLOWED);
            if
            :: ended -> store.cancel = false; store.asked_at = 0
            :: else
            fi
        :: else -> printf("%d delivers under %d.%d: refused\n", _pid, claim.number, claim.token)
        fi
    }
}

inline begin_run(claim) {
    d_step {
        claim.started = true;
        /* Who claimed after a cancellation was asked for has been told of it, and does not begin. */
        assert(store.asked_at == 0 || claim.token <= store.asked_at || store.token != claim.token);
#ifdef ONCE_ONLY
        store.starts++;
        assert(store.starts <= 1);
#endif
    }
}

/* Its process ends. Either its supervisor has seen whether its code had begun, or nobody has seen anything. */
inline die(claim) {
    atomic {
        deaths > 0 -> deaths--;
        printf("%d dies\n", _pid);
        if
        :: store.state == running && store.token == claim.token ->
            store.deserted = true;
            if
            :: store.fate != 0
            :: store.fate == 0 -> store.fate = lost
            :: store.fate == 0 && claim.started -> store.fate = crashed
            :: store.fate == 0 && !claim.started -> store.fate = released
            fi
        :: else
        fi
    }
}

/* It is told so when it next speaks to the store. */
inline hear_of_cancellation(claim) {
    atomic { store.cancel && store.state == running && store.token == claim.token -> claim.cancel = true }
}

/* Its worker stops, or is unfit. */
inline give_back() {
    atomic { releases > 0 -> releases--; outcome = release }
}

/* -- the policy, as model/settle.py has it ------------------------------------------------------------------------- */

inline give_up(claim, change) {
    if
    :: claim.stage < FALLBACKS && !claim.cancel ->
        change.next = ready;
        change.stage = claim.stage + 1;
        change.failures = 0;
        change.crashes = 0;
        change.suspect = false
    :: else -> change.next = buried
    fi
}

inline settle_crash(claim, change) {
    change.crashes = claim.crashes + 1;
    if
    :: change.crashes >= CRASHES_ALLOWED -> give_up(claim, change)
    :: else ->
        if
        :: claim.cancel -> change.next = cancelled
        :: else -> change.next = ready
        fi
    fi
}

inline settle(claim, outcome, change) {
    d_step {
        change.failures = claim.failures;
        change.crashes = claim.crashes;
        change.stage = claim.stage;
        change.suspect = claim.suspect;
        if
        :: outcome == success -> change.next = succeeded
        :: outcome == failure ->
            change.failures = claim.failures + 1;
            if
            :: claim.cancel -> change.next = cancelled
            :: !claim.cancel && change.failures >= MAX_ATTEMPTS -> give_up(claim, change)
            :: else -> change.next = ready
            fi
        :: outcome == crash -> settle_crash(claim, change)
        :: outcome == loss ->
            if
            :: claim.suspect || AT_MOST_ONCE -> settle_crash(claim, change)
            :: else -> change.suspect = true; change.next = ready
            fi
        :: outcome == release ->
            if
            :: claim.started && AT_MOST_ONCE -> change.next = buried
            :: claim.started && !AT_MOST_ONCE && claim.cancel -> change.next = cancelled
            :: else -> change.next = ready
            fi
        :: outcome == stop -> change.next = cancelled
        fi;
        outcome = 0;                                    /* what is not looked at any more need not tell states apart */
        claim.failures = 0; claim.crashes = 0; claim.stage = 0; claim.suspect = false; claim.cancel = false
    }
}

/* -- who takes part ------------------------------------------------------------------------------------------------ */

inline forget(claim, change) {
    d_step {
        claim.number = 0; claim.token = 0; claim.failures = 0; claim.crashes = 0; claim.stage = 0;
        claim.suspect = false; claim.cancel = false; claim.started = false;
        change.next = 0; change.failures = 0; change.crashes = 0; change.stage = 0; change.suspect = false;
        outcome = 0;
        sent = 0
    }
}

/* The same change may be delivered twice, at once or much later; or never, when its sender dies first. */
inline deliver_or_die(claim, change) {
    do
    :: sent < 2 -> deliver(claim, change); sent++
    :: sent > 0 -> break
    :: die(claim); break
    od
}

proctype Worker() {
    Claim mine;
    Change change;
    mtype:ending outcome;
    byte sent;
end_idle:
    do
    :: atomic { store.state == ready -> take(mine) };
        if
        :: mine.cancel -> outcome = stop
        :: !mine.cancel -> begin_run(mine);
            if
            :: outcome = success
            :: outcome = failure
            :: hear_of_cancellation(mine);
                if
                :: outcome = stop
                :: outcome = success
                :: outcome = failure
                fi
            :: give_back()
            :: die(mine); goto rest
            fi
        :: give_back()
        :: die(mine); goto rest
        fi;
        settle(mine, outcome, change);
        deliver_or_die(mine, change);
rest:   forget(mine, change)
    od
}

proctype Tender() {
    Claim mine;
    Change change;
    mtype:ending outcome;
    byte sent;
end_idle:
    do
    :: atomic {
            if
            :: store.state == running && store.deserted
            :: store.state == running && !store.deserted && lapses > 0 -> lapses--     /* its holder still lives */
            fi;
            take_over(mine);
            if
            :: store.fate == crashed -> outcome = crash
            :: store.fate == lost -> outcome = loss
            :: store.fate == released -> outcome = release
            fi
        };
        settle(mine, outcome, change);
        deliver_or_die(mine, change);
        forget(mine, change)
    od
}

proctype Operator() {
    byte cancels = CANCELS, kicks = KICKS;
end_idle:
    do
    :: atomic { cancels > 0 && !ended -> cancels--;
            if
            :: store.state == ready -> store.state = cancelled; store.cancel = false; store.asked_at = 0
            :: else ->
                store.cancel = true;
                if
                :: store.asked_at == 0 -> store.asked_at = store.token
                :: else
                fi
            fi
        }
    :: atomic { kicks > 0 && (store.state == buried || store.state == cancelled) -> kicks--; bring_back() }
    :: atomic { kicks > 0 && store.state == succeeded && store.stage > 0 ->      /* upgrade */
            kicks--; store.stage = 0; bring_back()
        }
    od
}

inline copy(from, to) {
    to.state = from.state; to.number = from.number; to.token = from.token;
    to.deserted = from.deserted; to.fate = from.fate;
    to.failures = from.failures; to.crashes = from.crashes; to.stage = from.stage;
    to.suspect = from.suspect; to.cancel = from.cancel;
    to.starts = from.starts; to.asked_at = from.asked_at
}

/* A backup is restored, or a replica that lags takes over: what was written since then is gone. */
proctype Rollback() {
    byte left = ROLLBACKS;
end_idle:
    do
    :: d_step { left > 0 -> copy(store, kept); printf("%d keeps a copy of the store\n", _pid) };
        d_step {
            printf("%d rolls the store back\n", _pid);
            copy(kept, store);
            store.deserted = (store.state == running);
            reopened++;
            left--
        }
    od
}

#ifdef POLICY_TABLE
/* Instead of the model: each decision of the policy, so that it can be compared with that of the program. */
Claim held;
Change made;
mtype:ending outcome;

inline decide(with) {
    held.failures = failures; held.crashes = crashes; held.stage = stage;
    held.suspect = (flags & 1) != 0; held.cancel = (flags & 2) != 0; held.started = (flags & 4) != 0;
    outcome = with;
    settle(held, outcome, made);
    printf("%e %d %d %d %d %d %d %d %d %d\n", with, failures, crashes, stage, flags,
        made.next, made.failures, made.crashes, made.stage, made.suspect)
}

init {
    byte failures, crashes, stage, flags;
    for (failures : 0 .. MAX_ATTEMPTS - 1) {
        for (crashes : 0 .. CRASHES_ALLOWED - 1) {
            for (stage : 0 .. FALLBACKS) {
                for (flags : 0 .. 7) {
                    decide(success); decide(failure); decide(crash); decide(loss); decide(release); decide(stop)
                }
            }
        }
    }
}
#else
init {
    byte i;
    atomic {
        store.state = ready;
        do
        :: i < WORKERS -> run Worker(); i++
        :: else -> break
        od;
        i = 0;
        do
        :: i < TENDERS -> run Tender(); i++
        :: else -> break
        od;
        run Operator();
        if
        :: ROLLBACKS > 0 -> run Rollback()
        :: else
        fi;
        i = 0
    }
}
#endif

/* ERA: after how many times of being brought back; a property is checked for one era at a time. */
#ifndef ERA
#define ERA 0
#endif
ltl final_stays_final { [] ((ended && reopened == ERA) -> [] (ended || reopened != ERA)) }
ltl always_ends { [] <> ended }
