/*
 * failover_calls.h
 *		How the replication worker of test_failover_sim.c waits and calls others.  It is a
 *		task: where the server's waits, other brokers and other processes of this one go on.
 */
#ifndef FAILOVER_CALLS_H
#define FAILOVER_CALLS_H

/* --- waiting, errors --- */

/* Until a time, or an answer, or somebody wakes it. */
static inline void
sleep_until(Broker *broker, int64 time)
{
	broker->wake_at = time;
	broker->woken = false;
	task_yield();
}

/* Between two transactions others may do something. */
static inline void
linger(Broker *broker)
{
	if (mishap(faults.linger))
		sleep_until(broker, now + 1 + random_below(chance(50) ? 60 : 6));
}

static inline void
raise_error(Broker *broker, Code code)
{
	broker->error = code;
	_longjmp(broker->on_error, 1);
}

/* A step may fail for reasons that are not ours. */
static inline void
may_fail(Broker *broker)
{
	if (mishap(faults.fail))
		raise_error(broker, FAILED);
}

/* worker_run_task(): false if there was an error. */
static inline bool
run_task(Broker *broker, void (*task) (Broker *broker, void *arg), void *arg)
{
	jmp_buf		outer;
	volatile bool done = false;

	memcpy(outer, broker->on_error, sizeof(jmp_buf));
	if (_setjmp(broker->on_error) == 0)
	{
		task(broker, arg);
		done = true;
	}
	memcpy(broker->on_error, outer, sizeof(jmp_buf));
	return done;
}

/* There is newer metadata, which is to be applied first. */
static inline bool
waits_in_vain(const Broker *broker)
{
	return broker->disk.quorum.committed_version > broker->round_version;
}

/* Calls a function of another broker's, or of this one; an error if there is no answer. */
static inline Answer
call(Broker *broker, int to, Call request)
{
	Message		message = {.from = broker->id,.to = to,.kind = CALL};
	int64		began = now;

	request.id = ++calls_count;
	message.u.call = request;
	broker->awaited = request.id;
	broker->answered = false;
	given_up[request.id % CALLS_MAX] = 0;
	network_send(message, true);
	while (!broker->answered)
	{
		int64		limit = request.kind == CALL_WAIT_COMMITTED || request.kind == CALL_CREATE_SLOT ?
		COMMIT_WAIT + CALL_TIMEOUT : CALL_TIMEOUT;

		if (now - began >= limit || (now - began >= PATIENCE && waits_in_vain(broker)))
		{
			given_up[request.id % CALLS_MAX] = now;
			broker->awaited = 0;
			raise_error(broker, FAILED);
		}
		sleep_until(broker, waits_in_vain(broker) ? began + PATIENCE : began + limit);
	}
	broker->awaited = 0;
	broker->answered = false;
	return broker->answer;
}

/* The same, where an answer that is not DONE is an error. */
static inline Answer
call_done(Broker *broker, int to, Call request)
{
	Answer		answer = call(broker, to, request);

	if (answer.code != DONE)
		raise_error(broker, answer.code);
	return answer;
}

/*
 * The server has the controller's conninfo from the catalog.  A standby that was
 * promoted may not know of it there, and does not apply what says so before it has
 * given up leading, for which it needs the controller.
 */
static inline bool
can_call_controller(const Broker *broker)
{
	return broken == SERVER_CONTROLLER_UNKNOWN ? broker->disk.known[broker->controller] :
		image_broker(image_at(broker->disk.image), broker->controller) != NULL;
}

/*
 * cluster/change.c, cluster_change(): the version; 0: without effect.  *as_of is the
 * version that the controller has then.
 */
static inline int64
cluster_change_as_of(Broker *broker, Call request, int64 *as_of)
{
	int64		deadline = now + CHANGE_WAIT;

	request.kind = CALL_CHANGE;
	for (;;)
	{
		Answer		answer;

		if (broker->controller == 0 || !can_call_controller(broker))
		{
			if (now >= deadline)
				raise_error(broker, FAILED);
			sleep_until(broker, now + RETRY);
			continue;
		}
		answer = call(broker, broker->controller, request);
		if (answer.code == NOT_NOW && now < deadline && !waits_in_vain(broker))
		{
			sleep_until(broker, now + RETRY);
			continue;
		}
		if (answer.code != DONE)
			raise_error(broker, answer.code);
		if (answer.version != 0)
		{
			Answer		committed = call(broker, broker->controller, (Call) {
				.kind = CALL_WAIT_COMMITTED,.term = answer.term,.version = answer.version
			});

			if (committed.code != DONE)
				raise_error(broker, FAILED);
		}
		*as_of = answer.value;
		return answer.version;
	}
}

static inline int64
cluster_change(Broker *broker, Call request)
{
	int64		as_of;

	return cluster_change_as_of(broker, request, &as_of);
}

#endif							/* FAILOVER_CALLS_H */
