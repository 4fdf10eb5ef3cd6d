/*
 * nemesis.c
 *		What goes wrong: cancelled, terminated, killed and stopped backends; servers
 *		that are stopped, killed or frozen as a whole; and, in a cluster, networks
 *		that lose what is sent, slow disks, clocks that step, leaders and replicas
 *		that move.
 *
 * Signals go to processes of these servers alone: their parent is the postmaster
 * whose id is in the data directory's postmaster.pid, or they are it.
 */
#include "workload.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shim.h"

typedef enum Fault
{
	/* of single processes */
	CANCEL, TERMINATE, PAUSE, TERMINATE_WORKER, CHECKPOINT, KILL_BACKEND, KILL_WORKER,
	/* of whole servers */
	STOP_IMMEDIATE, KILL_POSTMASTER, RESTART_FAST,
	/* of clusters */
	KILL_BROKER, FLAP, CUT_AND_KILL, LOSE_MINORITY, FREEZE, SEVER, SEVER_ONE_WAY, ISOLATE, MUTE, DEAFEN, DROP, DELAY, SLOW_DISK, CLOCK,
	ELECT, MOVE, LOSE_MAJORITY, FULL_RESTART
} Fault;

/* One round, shuffled; faults that take the server down come in between others. */
static const Fault deck_single[] = {
	CANCEL, CANCEL, CANCEL, CANCEL, TERMINATE, TERMINATE, TERMINATE, TERMINATE,
	PAUSE, PAUSE, TERMINATE_WORKER, CHECKPOINT,
	KILL_BACKEND, KILL_BACKEND, KILL_WORKER, STOP_IMMEDIATE, KILL_POSTMASTER,
	RESTART_FAST
};

static const Fault deck_cluster[] = {
	CANCEL, TERMINATE, PAUSE, PAUSE, TERMINATE_WORKER, CHECKPOINT,
	KILL_BACKEND, KILL_WORKER, STOP_IMMEDIATE, RESTART_FAST,
	KILL_BROKER, KILL_BROKER, FLAP, FLAP, CUT_AND_KILL, LOSE_MINORITY, FREEZE, FREEZE, FREEZE,
	SEVER, SEVER, SEVER_ONE_WAY, SEVER_ONE_WAY, ISOLATE, ISOLATE, MUTE, MUTE, DEAFEN, DROP, DELAY,
	SLOW_DISK, SLOW_DISK, CLOCK, CLOCK, ELECT, ELECT, MOVE,
	LOSE_MAJORITY, FULL_RESTART
};

/* What comes first, so that a short run has a bit of everything. */
static const Fault first_cluster[] = {KILL_BROKER, FREEZE, ISOLATE};

#define DECK_MAX 50

/* Long enough, as a rule, for the others to notice: see pgtopic.broker_session_timeout in run.sh. */
static int
random_downtime(Client *c)
{
	return chance(c, 40) ? 100 + rnd_below(c, 1500) : 2500 + rnd_below(c, 4500);
}

static pid_t
postmaster_pid(const Options *opt, int b)
{
	char		path[1024];
	FILE	   *f;
	long		pid = 0;

	snprintf(path, sizeof(path), "%s/postmaster.pid", opt->broker[b].datadir);
	f = fopen(path, "r");
	if (f == NULL)
		return 0;
	if (fscanf(f, "%ld", &pid) != 1)
		pid = 0;
	fclose(f);
	return (pid_t) pid;
}

/* The state and parent of a process, from /proc; false if there is none. */
static bool
process_stat(pid_t pid, char *state, int *ppid)
{
	char		path[64];
	char		stat[512];
	FILE	   *f;
	size_t		n;
	char	   *p;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int) pid);
	f = fopen(path, "r");
	if (f == NULL)
		return false;
	n = fread(stat, 1, sizeof(stat) - 1, f);
	fclose(f);
	stat[n] = '\0';
	/* after the name, which may contain anything, comes ") state ppid" */
	p = strrchr(stat, ')');
	return p != NULL && sscanf(p + 1, " %c %d", state, ppid) == 2;
}

static bool
is_child_of(pid_t pid, pid_t parent)
{
	char		state;
	int			ppid;

	return process_stat(pid, &state, &ppid) && ppid == (int) parent;
}

static bool
process_lives(pid_t pid)
{
	char		state;
	int			ppid;

	return process_stat(pid, &state, &ppid) && state != 'Z' && state != 'X';
}

/* A server's processes, when its postmaster makes no new ones. */
typedef struct Processes
{
	pid_t		postmaster;		/* 0: it does not run */
	pid_t		child[500];
	int			count;
} Processes;

static void
stop_and_list(Client *c, int b, Processes *all)
{
	DIR		   *proc;
	struct dirent *entry;

	all->postmaster = postmaster_pid(c->opt, b);
	all->count = 0;
	if (all->postmaster <= 1 || kill(all->postmaster, SIGSTOP) != 0)
	{
		all->postmaster = 0;
		return;
	}
	proc = opendir("/proc");
	while (proc != NULL && (entry = readdir(proc)) != NULL && all->count < 500)
	{
		pid_t		pid = (pid_t) atoi(entry->d_name);

		if (pid > 1 && is_child_of(pid, all->postmaster))
			all->child[all->count++] = pid;
	}
	if (proc != NULL)
		closedir(proc);
}

static void
signal_all(const Processes *all, int sig)
{
	if (all->postmaster == 0)
		return;
	kill(all->postmaster, sig);
	for (int i = 0; i < all->count; i++)
		kill(all->child[i], sig);
}

/* Run a program of the server's, quietly; true if it succeeded. */
static bool
run_program(Client *c, int b, char *const argv[])
{
	pid_t		pid = fork();
	int			status;

	if (pid == 0)
	{
		char		path[1024];

		/* what run.sh has given the postmaster too */
		if (in_cluster(c))
		{
			snprintf(path, sizeof(path), "%s/pg_service.conf", c->opt->broker[b].folder);
			setenv("PGSERVICEFILE", path, 1);
		}
		if (c->opt->shim)
		{
			snprintf(path, sizeof(path), "%s/shim", c->opt->broker[b].folder);
			setenv("PGT_SHIM", path, 1);
			setenv("LD_PRELOAD", c->opt->shim, 1);
		}
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
pg_ctl(Client *c, int b, const char *action, const char *mode)
{
	char		program[1024];
	char		logfile[1024];
	char	   *argv[14];
	int			n = 0;

	snprintf(program, sizeof(program), "%s/pg_ctl", c->opt->bindir);
	snprintf(logfile, sizeof(logfile), "%s/log", c->opt->broker[b].folder);
	argv[n++] = program;
	argv[n++] = (char *) action;
	argv[n++] = "-s";
	argv[n++] = "-w";
	argv[n++] = "-t";
	argv[n++] = "60";
	argv[n++] = "-D";
	argv[n++] = (char *) c->opt->broker[b].datadir;
	if (mode != NULL)
	{
		argv[n++] = "-m";
		argv[n++] = (char *) mode;
	}
	if (strcmp(action, "stop") != 0)
	{
		argv[n++] = "-l";
		argv[n++] = logfile;
	}
	argv[n] = NULL;
	return run_program(c, b, argv);
}

/*
 * Start the server.  After a postmaster was killed its children may need a
 * moment to notice, and until then a new one refuses to start.
 */
static void
start_server(Client *c, int b)
{
	int64_t		deadline = now_us() + 60 * INT64_C(1000000);

	while (!pg_ctl(c, b, "start", NULL))
	{
		if (now_us() > deadline || is_stopping(c))
		{
			record(c, "stuck", "server %d does not start", b + 1);
			return;
		}
		nap_ms(100);
	}
}

static void
stop_server(Client *c, int b, const char *mode)
{
	if (!pg_ctl(c, b, "stop", mode) && !is_stopping(c))
	{
		record(c, "stuck", "server %d does not stop (%s)", b + 1, mode);
		pg_ctl(c, b, "stop", "immediate");
	}
}

/* SIGKILL of a postmaster and its processes, as if the power had gone. */
static void
kill_server(Client *c, int b)
{
	Processes	all;
	int64_t		deadline = now_us() + 30 * INT64_C(1000000);
	bool		lives = true;

	stop_and_list(c, b, &all);
	signal_all(&all, SIGKILL);
	/* somebody reaps them: see test/scripts/subreaper */
	while (all.postmaster != 0 && lives && now_us() < deadline)
	{
		nap_ms(5);
		lives = process_lives(all.postmaster);
		for (int i = 0; i < all.count; i++)
			lives |= process_lives(all.child[i]);
	}
}

/* --- processes --- */

/* A process of the server: one of the workload's backends, or a worker of ours. */
static pid_t
pick_process(Client *c, bool worker)
{
	pid_t		postmaster = postmaster_pid(c->opt, c->broker);
	Outcome		out;
	PGresult   *res;
	pid_t		pid = 0;

	res = client_exec(c, &out, worker ?
					  "SELECT pid FROM pg_stat_activity WHERE backend_type ~ '^(pgtopic|logical replication|walsender)'"
					  " ORDER BY random()" :
					  "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend'"
					  " AND application_name ~ '^([pncfx][0-9]+|pgtopic broker [0-9]+)$'"
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

/* --- networks, disks, clocks: see proxies.pl and shim.c --- */

static void
proxies(Client *c, const char *fmt,...)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int			fd = socket(AF_UNIX, SOCK_STREAM, 0);
	char		line[100];
	char		answer[200] = "";
	int			n;
	va_list		ap;

	va_start(ap, fmt);
	n = vsnprintf(line, sizeof(line) - 1, fmt, ap);
	va_end(ap);
	line[n++] = '\n';
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", c->opt->proxies);
	if (fd < 0 || connect(fd, (struct sockaddr *) &address, sizeof(address)) != 0 ||
		write(fd, line, (size_t) n) != n || read(fd, answer, sizeof(answer) - 1) <= 0 ||
		strncmp(answer, "ok", 2) != 0)
		record(c, "stuck", "the proxies do not %.*s: %.20s", n - 1, line, answer);
	close(fd);
}

static void
set_shim(Client *c, int b, int64_t sync_delay, int64_t clock_offset)
{
	char		path[1024];
	ShimControl control = {sync_delay, clock_offset};
	int			fd;

	if (c->opt->shim == NULL)
		return;
	snprintf(path, sizeof(path), "%s/shim", c->opt->broker[b].folder);
	fd = open(path, O_WRONLY);
	if (fd < 0 || pwrite(fd, &control, sizeof(control), 0) != sizeof(control))
		record(c, "stuck", "%s: %s", path, strerror(errno));
	close(fd);
}

/* --- leaders and replicas --- */

static void
random_election(Client *c)
{
	char		sql[200];

	snprintf(sql, sizeof(sql), "SELECT elect_leader('%s', %d, %d)", chance(c, 80) ? MAIN_TOPIC : DERIVED_TOPIC,
			 rnd_below(c, 2), 1 + rnd_below(c, c->opt->brokers));
	client_command(c, sql);
}

static void
random_move(Client *c)
{
	char		sql[200];
	int			order[MAX_BROKERS];
	int			n = c->opt->brokers;

	for (int i = 0; i < n; i++)
	{
		int			j = rnd_below(c, i + 1);

		order[i] = order[j];
		order[j] = i + 1;
	}
	snprintf(sql, sizeof(sql), "SELECT move_partition('" MAIN_TOPIC "', %d, '{%d,%d,%d}')", rnd_below(c, 4),
			 order[0], order[1], order[2]);
	client_command(c, sql);
}

/* --- faults --- */

static void
fault_of_process(Client *c, Fault fault)
{
	bool		worker = fault == TERMINATE_WORKER || fault == KILL_WORKER;
	pid_t		pid;

	/* whatever broker is there */
	c->pinned = false;
	client_disconnect(c);
	c->broker = rnd_below(c, c->opt->brokers);
	if (!client_connect(c) || (pid = pick_process(c, worker)) == 0)
		return;

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
			nap_ms(200 + rnd_below(c, in_cluster(c) ? 4000 : 800));
			kill(pid, SIGCONT);
			break;
		default:
			record(c, "fault", worker ? "kill-9 worker" : "kill-9 backend");
			kill(pid, SIGKILL);
			client_disconnect(c);
			nap_ms(50);
			break;
	}
}

/* Several brokers at the same time, without others: by killing, freezing, or cutting them off. */
static void
lose_several(Client *c, const int *order, int count, int how)
{
	int			n = c->opt->brokers;
	Processes	all[MAX_BROKERS];

	for (int i = 0; i < count; i++)
	{
		if (how == 0)
			kill_server(c, order[i]);
		else if (how == 1)
		{
			stop_and_list(c, order[i], &all[i]);
			signal_all(&all[i], SIGSTOP);
		}
		else
			for (int j = 0; j < n; j++)
				if (j != order[i])
					proxies(c, "cut %d %d", order[i] + 1, j + 1);
	}
	nap_ms(random_downtime(c));
	for (int i = 0; i < count; i++)
	{
		if (how == 0)
			start_server(c, order[i]);
		else if (how == 1)
			signal_all(&all[i], SIGCONT);
		nap_ms(chance(c, 50) ? 0 : rnd_below(c, 2000));
	}
	if (how == 2)
		proxies(c, "heal");
}

/* What happens to one broker, or between two, or to all of a cluster. */
static void
fault_of_cluster(Client *c, Fault fault)
{
	int			n = c->opt->brokers;
	int			order[MAX_BROKERS];
	int			a,
				b;
	int			downtime = random_downtime(c);
	Processes	all;
	int			how;

	for (int i = 0; i < n; i++)
	{
		int			j = rnd_below(c, i + 1);

		order[i] = order[j];
		order[j] = i;
	}
	a = order[0];
	b = order[1 % n];
	client_disconnect(c);

	switch (fault)
	{
		case STOP_IMMEDIATE:
			record(c, "fault", "immediate stop\t%d", a + 1);
			stop_server(c, a, "immediate");
			start_server(c, a);
			break;
		case KILL_POSTMASTER:
			record(c, "fault", "kill-9 postmaster\t%d", a + 1);
			{
				pid_t		postmaster = postmaster_pid(c->opt, a);

				if (postmaster > 1)
					kill(postmaster, SIGKILL);
				while (postmaster > 1 && process_lives(postmaster) && !is_stopping(c))
					nap_ms(10);
			}
			start_server(c, a);
			break;
		case RESTART_FAST:
			record(c, "fault", "restart\t%d", a + 1);
			stop_server(c, a, "fast");
			if (n > 1)
				nap_ms(downtime);
			start_server(c, a);
			break;
		case KILL_BROKER:
			record(c, "fault", "kill-9 broker\t%d", a + 1);
			kill_server(c, a);
			nap_ms(downtime);
			start_server(c, a);
			break;
		case FLAP:
			/* while it comes back, copies what it lacks, is in sync again */
			record(c, "fault", "kill-9 broker several times\t%d", a + 1);
			for (int i = 2 + rnd_below(c, 3); i > 0; i--)
			{
				kill_server(c, a);
				nap_ms(chance(c, 50) ? 0 : rnd_below(c, 3000));
				start_server(c, a);
				nap_ms(rnd_below(c, 3000));
			}
			break;
		case CUT_AND_KILL:
			record(c, "fault", "cut a pair and kill-9 another broker\t%d %d %d", a + 1, b + 1, order[2 % n] + 1);
			proxies(c, "cut %d %d", a + 1, b + 1);
			nap_ms(rnd_below(c, 4000));
			kill_server(c, order[2 % n]);
			nap_ms(downtime);
			start_server(c, order[2 % n]);
			nap_ms(rnd_below(c, 2000));
			proxies(c, "heal");
			break;
		case LOSE_MINORITY:
			how = rnd_below(c, 3);
			record(c, "fault", "minority %s\t-", how == 0 ? "kill-9" : how == 1 ? "frozen" : "cut off");
			lose_several(c, order, (n - 1) / 2, how);
			break;
		case FREEZE:
			record(c, "fault", "freeze broker\t%d", a + 1);
			stop_and_list(c, a, &all);
			signal_all(&all, SIGSTOP);
			nap_ms(downtime);
			signal_all(&all, SIGCONT);
			break;
		case SEVER:
			record(c, "fault", "cut a pair\t%d %d", a + 1, b + 1);
			proxies(c, "cut %d %d", a + 1, b + 1);
			nap_ms(downtime);
			proxies(c, "heal");
			break;
		case SEVER_ONE_WAY:
			record(c, "fault", "cut one way\t%d %d", a + 1, b + 1);
			proxies(c, "oneway %d %d", a + 1, b + 1);
			nap_ms(downtime);
			proxies(c, "heal");
			break;
		case ISOLATE:
			record(c, "fault", "isolate broker\t%d", a + 1);
			for (int i = 1; i < n; i++)
				proxies(c, "cut %d %d", a + 1, order[i] + 1);
			nap_ms(downtime);
			proxies(c, "heal");
			break;
		case MUTE:
			record(c, "fault", "broker is not heard\t%d", a + 1);
			for (int i = 1; i < n; i++)
				proxies(c, "oneway %d %d", a + 1, order[i] + 1);
			nap_ms(downtime);
			proxies(c, "heal");
			break;
		case DEAFEN:
			record(c, "fault", "broker does not hear\t%d", a + 1);
			for (int i = 1; i < n; i++)
				proxies(c, "oneway %d %d", order[i] + 1, a + 1);
			nap_ms(downtime);
			proxies(c, "heal");
			break;
		case DROP:
			record(c, "fault", "drop connections\t%d %d", a + 1, b + 1);
			proxies(c, "drop %d %d", a + 1, b + 1);
			break;
		case DELAY:
			record(c, "fault", "slow network\t%d %d", a + 1, b + 1);
			proxies(c, "delay %d %d %d", a + 1, b + 1, 5 + rnd_below(c, 200));
			nap_ms(downtime);
			proxies(c, "delay %d %d 0", a + 1, b + 1);
			break;
		case SLOW_DISK:
			record(c, "fault", "slow disk\t%d", a + 1);
			set_shim(c, a, 20000 + rnd_below(c, chance(c, 50) ? 100000 : 1500000), 0);
			nap_ms(downtime);
			set_shim(c, a, 0, 0);
			break;
		case CLOCK:
			how = (chance(c, 50) ? 1 : -1) * (1 + rnd_below(c, chance(c, 50) ? 10 : 600));
			record(c, "fault", "clock step\t%d %d", a + 1, how);
			set_shim(c, a, 0, how * INT64_C(1000000));
			nap_ms(downtime);
			set_shim(c, a, 0, 0);
			break;
		case LOSE_MAJORITY:
			how = rnd_below(c, 3);
			record(c, "fault", "majority %s\t-", how == 0 ? "kill-9" : how == 1 ? "frozen" : "cut off");
			lose_several(c, order, n / 2 + 1, how);
			break;
		case FULL_RESTART:
			record(c, "fault", "full restart after kill-9\t-");
			lose_several(c, order, n, 0);
			break;
		default:
			break;
	}
}

static void
do_fault(Client *c, Fault fault)
{
	switch (fault)
	{
		case CANCEL:
		case TERMINATE:
		case PAUSE:
		case TERMINATE_WORKER:
		case KILL_BACKEND:
		case KILL_WORKER:
			fault_of_process(c, fault);
			break;
		case CHECKPOINT:
		case ELECT:
		case MOVE:
			c->pinned = false;
			if (!client_connect(c))
				return;
			record(c, "fault", fault == CHECKPOINT ? "checkpoint" : fault == ELECT ? "elect a leader" : "move a partition");
			if (fault == CHECKPOINT)
				client_command(c, "CHECKPOINT");
			else if (fault == ELECT)
				random_election(c);
			else
				random_move(c);
			break;
		default:
			fault_of_cluster(c, fault);
			break;
	}
	/* the next one when this one is over */
	if (client_connect(c))
		record(c, "healed", "-");
}

/* The last crash, when all is quiet. */
void
crash_servers(Client *c)
{
	record(c, "restart", "crash before the final read");
	client_disconnect(c);
	for (int b = 0; b < c->opt->brokers; b++)
		kill_server(c, b);
	for (int b = 0; b < c->opt->brokers; b++)
		start_server(c, b);
}

void
run_nemesis(Client *c, double seconds)
{
	int64_t		begin = now_us();
	int64_t		end = begin + (int64_t) (seconds * 1e6);
	bool		added = false;
	const Fault *deck = in_cluster(c) ? deck_cluster : deck_single;
	int			deck_size = in_cluster(c) ? (int) (sizeof(deck_cluster) / sizeof(Fault)) :
		(int) (sizeof(deck_single) / sizeof(Fault));
	Fault		round[DECK_MAX];
	int			left = 0;

	if (in_cluster(c))
	{
		memcpy(round, first_cluster, sizeof(first_cluster));
		left = (int) (sizeof(first_cluster) / sizeof(Fault));
	}
	while (now_us() < end && c->shared->phase == PHASE_RUN)
	{
		nap_ms(100 + rnd_below(c, 1200));
		/* in a cluster often on what is not well again yet, often not */
		if (in_cluster(c) && chance(c, 40))
			(void) wait_in_sync(c, seconds < 40 ? 2 : 10);
		if (now_us() >= end)
			break;
		if (!added && now_us() > begin + (end - begin) / 2 && client_connect(c))
		{
			record(c, "fault", "add partitions");
			added = client_command(c, "SELECT add_partitions('" MAIN_TOPIC "', 6)") == OUT_OK;
			/* without an answer it may have been done */
			if (!added && strcmp(c->sqlstate, "22023") == 0)
				added = true;
			record(c, "healed", "-");
			continue;
		}
		if (left == 0)
		{
			memcpy(round, deck, sizeof(Fault) * (size_t) deck_size);
			left = deck_size;
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
