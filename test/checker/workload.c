/*
 * workload.c
 *		Runs producers, consumers, pipes, fetchers and the nemesis, each in a
 *		process of its own, then reads the log to its end.
 *
 * The phases: everything with faults; everything without; the producers stop;
 * the pipes have consumed all and stop; consumers and fetchers have read all.
 */
#include "workload.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

/* How long what is left may take once the producers have stopped. */
#define DRAIN_LIMIT (120 * INT64_C(1000000))

#define MAX_CHILDREN 200

typedef enum Role
{
	ROLE_PRODUCER, ROLE_NUMBERED, ROLE_PIPE, ROLE_CONSUMER, ROLE_FETCHER, ROLE_NEMESIS, ROLES
} Role;

typedef struct Child
{
	pid_t		pid;			/* 0 when it has ended */
	Role		role;
} Child;

static Child children[MAX_CHILDREN];
static int	nchildren;
static bool child_failed;

static void
usage(void)
{
	fprintf(stderr,
			"usage: workload --dir FOLDER --bindir FOLDER --broker 'DATADIR FOLDER PORT'...\n"
			"                [--proxies SOCKET] [--shim LIBRARY] [--duration SECONDS] [--seed N]\n"
			"                [--producers N] [--numbered N] [--consumers N] [--pipes N] [--fetchers N]\n"
			"                [--no-nemesis]\n");
	exit(2);
}

static void
parse_options(int argc, char **argv, Options *opt)
{
	static const struct option longopts[] = {
		{"dir", required_argument, NULL, 'd'},
		{"bindir", required_argument, NULL, 'b'},
		{"broker", required_argument, NULL, 'B'},
		{"proxies", required_argument, NULL, 'P'},
		{"shim", required_argument, NULL, 'S'},
		{"duration", required_argument, NULL, 't'},
		{"seed", required_argument, NULL, 's'},
		{"producers", required_argument, NULL, 'p'},
		{"numbered", required_argument, NULL, 'u'},
		{"consumers", required_argument, NULL, 'c'},
		{"pipes", required_argument, NULL, 'x'},
		{"fetchers", required_argument, NULL, 'f'},
		{"no-nemesis", no_argument, NULL, 'n'},
		{NULL, 0, NULL, 0}
	};
	int			ch;

	*opt = (Options)
	{
		.duration = 30, .seed = 1, .producers = 4, .numbered = 2, .consumers = 3, .pipes = 1,
		.fetchers = 4, .nemesis = true
	};
	while ((ch = getopt_long(argc, argv, "", longopts, NULL)) != -1)
	{
		switch (ch)
		{
			case 'd': opt->dir = optarg; break;
			case 'b': opt->bindir = optarg; break;
			case 'P': opt->proxies = optarg; break;
			case 'S': opt->shim = optarg; break;
			case 'B':
				{
					Broker	   *broker = &opt->broker[opt->brokers];

					if (++opt->brokers > MAX_BROKERS ||
						sscanf(optarg, "%399s %399s %15s", broker->datadir, broker->folder, broker->port) != 3)
						usage();
				}
				break;
			case 't': opt->duration = atof(optarg); break;
			case 's': opt->seed = strtoull(optarg, NULL, 10); break;
			case 'u': opt->numbered = atoi(optarg); break;
			case 'p': opt->producers = atoi(optarg); break;
			case 'c': opt->consumers = atoi(optarg); break;
			case 'x': opt->pipes = atoi(optarg); break;
			case 'f': opt->fetchers = atoi(optarg); break;
			case 'n': opt->nemesis = false; break;
			default: usage();
		}
	}
	if (opt->dir == NULL || optind != argc || opt->brokers == 0 ||
		(opt->nemesis && (opt->bindir == NULL || (opt->brokers > 1 && opt->proxies == NULL))) ||
		opt->producers + opt->numbered + 2 * opt->consumers + opt->pipes + opt->fetchers + 1 > MAX_CHILDREN)
		usage();
}

static void
start_child(const Options *opt, Shared *shared, Role role, int number, double seconds)
{
	static const char *const names[ROLES] = {"p", "n", "x", "c", "f", "nemesis"};
	pid_t		pid = fork();
	Client		c;

	if (pid < 0)
	{
		perror("fork");
		shared->phase = PHASE_STOP;
		child_failed = true;
		return;
	}
	if (pid > 0)
	{
		children[nchildren++] = (Child) {pid, role};
		return;
	}

	client_init(&c, opt, shared, names[role], number);
	/* some see the errors of brokers that wait for others, some do not wait so long */
	if (opt->brokers > 1 && role != ROLE_NEMESIS)
		c.deadline = number % 2 ? 12000 : 4000;
	switch (role)
	{
		case ROLE_NUMBERED:
			run_numbered(&c);
			break;
		case ROLE_PRODUCER:
			run_producer(&c, number == 1);
			break;
		case ROLE_PIPE:
			run_pipe(&c);
			break;
		case ROLE_CONSUMER:
			run_consumer(&c, number % 2 ? "g1" : "g2");
			break;
		case ROLE_FETCHER:
			run_fetcher(&c, number);
			break;
		default:
			run_nemesis(&c, seconds);
			break;
	}
	fclose(c.hist);
	_exit(0);
}

/* Note the children that have ended. */
static void
reap(Shared *shared)
{
	int			status;
	pid_t		pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		for (int i = 0; i < nchildren; i++)
			if (children[i].pid == pid)
			{
				children[i].pid = 0;
				if (status != 0)
				{
					fprintf(stderr, "a process of the workload ended with status %d\n", status);
					child_failed = true;
					shared->phase = PHASE_STOP;
				}
			}
}

static int
running(Role role)
{
	int			n = 0;

	for (int i = 0; i < nchildren; i++)
		if (children[i].pid != 0 && children[i].role == role)
			n++;
	return n;
}

/* Wait until no child of a role runs.  False, and everybody is told to stop, after the deadline. */
static bool
wait_role(Client *c, Role role, int64_t deadline)
{
	for (;;)
	{
		reap(c->shared);
		if (running(role) == 0)
			return true;
		if (c->shared->phase == PHASE_STOP)
			return false;
		if (now_us() > deadline)
		{
			record(c, "stuck", "%d processes of role %d do not end", running(role), (int) role);
			c->shared->phase = PHASE_STOP;
			return false;
		}
		nap_ms(20);
	}
}

static bool
wait_sessions(Client *c, const char *roles, int64_t deadline)
{
	while (!sessions_gone(c, roles))
	{
		if (now_us() > deadline)
		{
			record(c, "stuck", "sessions in the server do not end");
			return false;
		}
		nap_ms(20);
	}
	return true;
}

static bool
drain(Client *c)
{
	static const char *const groups[] = {"g1", "g2"};
	int64_t		deadline = now_us() + DRAIN_LIMIT;

	c->shared->phase = PHASE_DRAIN_PIPES;
	if (!wait_role(c, ROLE_PRODUCER, deadline) || !wait_role(c, ROLE_NUMBERED, deadline) ||
		!wait_role(c, ROLE_PIPE, deadline))
		return false;
	if (!wait_sessions(c, "pnx", deadline))
		return false;
	c->shared->phase = PHASE_DRAIN;
	if (!wait_role(c, ROLE_CONSUMER, deadline) || !wait_role(c, ROLE_FETCHER, deadline) ||
		!wait_sessions(c, "pnxcf", deadline))
		return false;

	c->pinned = false;
	(void) wait_in_sync(c, 60);
	/* A consumer may have found nothing because another was at it. */
	for (int g = 0; g < 2; g++)
		if (!drain_group(c, groups[g], MAIN_TOPIC) || !drain_group(c, groups[g], DERIVED_TOPIC))
			return false;
	return c->opt->pipes == 0 || drain_group(c, "pipe", MAIN_TOPIC);
}

int
main(int argc, char **argv)
{
	Options		opt;
	Shared	   *shared;
	Client		c;
	int64_t		begin;
	double		calm;
	bool		done;

	parse_options(argc, argv, &opt);
	signal(SIGPIPE, SIG_IGN);
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
				  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
	{
		perror("mmap");
		return 2;
	}

	/* A fifth of the time, six seconds at most, is without faults. */
	begin = now_us();
	calm = opt.duration / 5 < 6 ? opt.duration / 5 : 6;
	for (int i = 1; i <= opt.producers; i++)
		start_child(&opt, shared, ROLE_PRODUCER, i, 0);
	for (int i = 1; i <= opt.numbered; i++)
		start_child(&opt, shared, ROLE_NUMBERED, i, 0);
	for (int i = 1; i <= opt.pipes; i++)
		start_child(&opt, shared, ROLE_PIPE, i, 0);
	for (int i = 1; i <= 2 * opt.consumers; i++)
		start_child(&opt, shared, ROLE_CONSUMER, i, 0);
	for (int i = 1; i <= opt.fetchers; i++)
		start_child(&opt, shared, ROLE_FETCHER, i, 0);
	if (opt.nemesis)
		start_child(&opt, shared, ROLE_NEMESIS, 0, opt.duration - calm);

	client_init(&c, &opt, shared, "final", 0);
	if (opt.brokers > 1)
		record(&c, "cluster", "%d", opt.brokers);
	wait_role(&c, ROLE_NEMESIS, begin + (int64_t) (opt.duration * 1e6) + DRAIN_LIMIT);
	if (shared->phase == PHASE_RUN)
		shared->phase = PHASE_CALM;
	/* the calm is as long as planned even when the last fault took longer */
	for (int64_t end = opt.nemesis ? now_us() + (int64_t) (calm * 1e6)
		 : begin + (int64_t) (opt.duration * 1e6);
		 now_us() < end && shared->phase == PHASE_CALM; nap_ms(20))
		reap(shared);

	done = shared->phase == PHASE_CALM && drain(&c);
	if (!done)
		shared->phase = PHASE_STOP;
	for (int64_t end = now_us() + 20 * INT64_C(1000000); now_us() < end; nap_ms(20))
	{
		int			left = 0;

		reap(shared);
		for (int r = 0; r < ROLES; r++)
			left += running((Role) r);
		if (left == 0)
			break;
	}
	for (int i = 0; i < nchildren; i++)
		if (children[i].pid != 0)
			kill(children[i].pid, SIGKILL);
	if (done)
		done = final_read(&c);
	fclose(c.hist);
	return done && !child_failed ? 0 : 1;
}
