/*
 * nemesis.c
 *		What goes wrong: cancelled, terminated, killed and stopped backends, and a
 *		server that is stopped or killed as a whole.
 *
 * Signals go to processes of this server alone: their parent is the postmaster
 * whose id is in the data directory's postmaster.pid, or they are it.
 */
#include "workload.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

typedef enum Fault
{
	CANCEL, TERMINATE, PAUSE, TERMINATE_WORKER, CHECKPOINT,
	KILL_BACKEND, KILL_WORKER, STOP_IMMEDIATE, KILL_POSTMASTER, RESTART_FAST
} Fault;

/* One round, shuffled; faults that take the server down come in between others. */
static const Fault deck[] = {
	CANCEL, CANCEL, CANCEL, CANCEL, TERMINATE, TERMINATE, TERMINATE, TERMINATE,
	PAUSE, PAUSE, TERMINATE_WORKER, CHECKPOINT,
	KILL_BACKEND, KILL_BACKEND, KILL_WORKER, STOP_IMMEDIATE, KILL_POSTMASTER,
	RESTART_FAST
};

#define DECK_SIZE ((int) (sizeof(deck) / sizeof(deck[0])))

static pid_t
postmaster_pid(const Options *opt)
{
	char		path[1024];
	FILE	   *f;
	long		pid = 0;

	snprintf(path, sizeof(path), "%s/postmaster.pid", opt->datadir);
	f = fopen(path, "r");
	if (f == NULL)
		return 0;
	if (fscanf(f, "%ld", &pid) != 1)
		pid = 0;
	fclose(f);
	return (pid_t) pid;
}

static bool
is_child_of(pid_t pid, pid_t parent)
{
	char		path[64];
	char		stat[512];
	FILE	   *f;
	size_t		n;
	char	   *p;
	int			ppid = -1;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int) pid);
	f = fopen(path, "r");
	if (f == NULL)
		return false;
	n = fread(stat, 1, sizeof(stat) - 1, f);
	fclose(f);
	stat[n] = '\0';
	/* after the name, which may contain anything, comes ") state ppid" */
	p = strrchr(stat, ')');
	return p != NULL && sscanf(p + 1, " %*c %d", &ppid) == 1 && ppid == (int) parent;
}

/* Run a program of the server's, quietly; true if it succeeded. */
static bool
run_program(char *const argv[])
{
	pid_t		pid = fork();
	int			status;

	if (pid == 0)
	{
		if (freopen("/dev/null", "w", stdout) == NULL ||
			freopen("/dev/null", "w", stderr) == NULL ||
			freopen("/dev/null", "r", stdin) == NULL || chdir("/") != 0)
			_exit(127);
		execv(argv[0], argv);
		_exit(127);
	}
	if (pid < 0)
		return false;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return false;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static bool
pg_ctl(Client *c, const char *action, const char *mode)
{
	char		program[1024];
	char	   *argv[14];
	int			n = 0;

	snprintf(program, sizeof(program), "%s/pg_ctl", c->opt->bindir);
	argv[n++] = program;
	argv[n++] = (char *) action;
	argv[n++] = "-s";
	argv[n++] = "-w";
	argv[n++] = "-t";
	argv[n++] = "60";
	argv[n++] = "-D";
	argv[n++] = (char *) c->opt->datadir;
	if (mode != NULL)
	{
		argv[n++] = "-m";
		argv[n++] = (char *) mode;
	}
	if (strcmp(action, "stop") != 0)
	{
		argv[n++] = "-l";
		argv[n++] = (char *) c->opt->logfile;
	}
	argv[n] = NULL;
	return run_program(argv);
}

/*
 * Start the server.  After a postmaster was killed its children may need a
 * moment to notice, and until then a new one refuses to start.
 */
static void
start_server(Client *c)
{
	int64_t		deadline = now_us() + 60 * INT64_C(1000000);

	while (!pg_ctl(c, "start", NULL))
	{
		if (now_us() > deadline || is_stopping(c))
		{
			record(c, "stuck", "the server does not start");
			return;
		}
		nap_ms(100);
	}
}

/* A process of the server: one of the workload's backends, or a worker of ours. */
static pid_t
pick_process(Client *c, bool worker)
{
	pid_t		postmaster = postmaster_pid(c->opt);
	Outcome		out;
	PGresult   *res;
	pid_t		pid = 0;

	res = client_exec(c, &out, worker ?
					  "SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'pgtopic%'"
					  " ORDER BY random()" :
					  "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend'"
					  " AND application_name ~ '^[pcfx][0-9]+$'"
					  /* rather one that is doing something */
					  " ORDER BY (state <> 'active')::int + random() LIMIT 1", 0, NULL);
	if (out == OUT_OK && PQntuples(res) > 0)
		pid = (pid_t) atoi(PQgetvalue(res, 0, 0));
	PQclear(res);
	if (pid <= 1 || postmaster <= 1 || !is_child_of(pid, postmaster))
		return 0;
	return pid;
}

static void
call_with_pid(Client *c, const char *function, pid_t pid)
{
	char		sql[100];

	snprintf(sql, sizeof(sql), "SELECT %s(%d)", function, (int) pid);
	client_command(c, sql);
}

static void
kill_postmaster(Client *c)
{
	pid_t		postmaster = postmaster_pid(c->opt);
	int64_t		deadline = now_us() + 30 * INT64_C(1000000);

	if (postmaster <= 1)
		return;
	record(c, "fault", "kill-9 postmaster");
	kill(postmaster, SIGKILL);
	client_disconnect(c);
	/* somebody reaps it: see test/scripts/subreaper */
	while (kill(postmaster, 0) == 0 && now_us() < deadline)
		nap_ms(10);
	start_server(c);
}

static void
do_fault(Client *c, Fault fault)
{
	bool		worker = fault == TERMINATE_WORKER || fault == KILL_WORKER;
	pid_t		pid = 0;

	if (!client_connect(c))
		return;
	switch (fault)
	{
		case CANCEL:
		case TERMINATE:
		case PAUSE:
		case KILL_BACKEND:
		case TERMINATE_WORKER:
		case KILL_WORKER:
			pid = pick_process(c, worker);
			if (pid == 0)
				return;
			break;
		default:
			break;
	}

	switch (fault)
	{
		case CANCEL:
			record(c, "fault", "cancel");
			call_with_pid(c, "pg_cancel_backend", pid);
			break;
		case TERMINATE:
			record(c, "fault", "terminate");
			call_with_pid(c, "pg_terminate_backend", pid);
			break;
		case TERMINATE_WORKER:
			record(c, "fault", "terminate worker");
			call_with_pid(c, "pg_terminate_backend", pid);
			break;
		case PAUSE:
			record(c, "fault", "pause");
			kill(pid, SIGSTOP);
			nap_ms(200 + rnd_below(c, 800));
			kill(pid, SIGCONT);
			break;
		case CHECKPOINT:
			record(c, "fault", "checkpoint");
			client_command(c, "CHECKPOINT");
			break;
		case KILL_BACKEND:
		case KILL_WORKER:
			record(c, "fault", worker ? "kill-9 worker" : "kill-9 backend");
			kill(pid, SIGKILL);
			client_disconnect(c);
			nap_ms(50);
			break;
		case STOP_IMMEDIATE:
			record(c, "fault", "immediate stop");
			client_disconnect(c);
			pg_ctl(c, "stop", "immediate");
			start_server(c);
			break;
		case KILL_POSTMASTER:
			kill_postmaster(c);
			break;
		case RESTART_FAST:
			record(c, "fault", "restart");
			client_disconnect(c);
			pg_ctl(c, "stop", "fast");
			start_server(c);
			break;
	}
	/* the next one when this one is over */
	if (client_connect(c))
		record(c, "healed", "-");
}

/* The last crash, when all is quiet. */
void
crash_server(Client *c)
{
	record(c, "restart", "immediate stop before the final read");
	client_disconnect(c);
	pg_ctl(c, "stop", "immediate");
	start_server(c);
}

void
run_nemesis(Client *c, double seconds)
{
	int64_t		begin = now_us();
	int64_t		end = begin + (int64_t) (seconds * 1e6);
	bool		added = false;
	Fault		round[DECK_SIZE];
	int			left = 0;

	while (now_us() < end && c->shared->phase == PHASE_RUN)
	{
		nap_ms(100 + rnd_below(c, 1200));
		if (now_us() >= end)
			break;
		if (!added && now_us() > begin + (end - begin) / 2 && client_connect(c))
		{
			record(c, "fault", "add partitions");
			added = client_command(c, "SELECT add_partitions('" MAIN_TOPIC "', 6)") == OUT_OK;
			continue;
		}
		if (left == 0)
		{
			memcpy(round, deck, sizeof(deck));
			left = DECK_SIZE;
		}
		{
			int			i = rnd_below(c, left);
			Fault		fault = round[i];

			round[i] = round[--left];
			do_fault(c, fault);
		}
	}
	client_disconnect(c);
}
