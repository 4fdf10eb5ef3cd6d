/*
 * shim.c
 *		A library for LD_PRELOAD that makes a server's disk slow and its clock step,
 *		as a file says that the nemesis writes.
 *
 * Flushes to the disk do nothing else than take that long: the machine does not
 * crash here, servers do.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "shim.h"

static const ShimControl nothing;
static const volatile ShimControl *control = &nothing;

__attribute__((constructor)) static void
shim_init(void)
{
	const char *path = getenv("PGT_SHIM");
	int			fd = path ? open(path, O_RDONLY) : -1;
	void	   *map;

	if (fd < 0)
		return;
	map = mmap(NULL, sizeof(ShimControl), PROT_READ, MAP_SHARED, fd, 0);
	close(fd);
	if (map != MAP_FAILED)
		control = map;
}

static int
flush(void)
{
	int64_t		delay = control->sync_delay;
	struct timespec ts = {delay / 1000000, (delay % 1000000) * 1000};

	/* a signal does not make a disk faster */
	while (delay > 0 && nanosleep(&ts, &ts) != 0)
		;
	return 0;
}

int
fsync(int fd)
{
	(void) fd;
	return flush();
}

int
fdatasync(int fd)
{
	(void) fd;
	return flush();
}

int
clock_gettime(clockid_t id, struct timespec *ts)
{
	static int	(*real) (clockid_t, struct timespec *);
	int			rc;

	if (real == NULL)
		real = (int (*) (clockid_t, struct timespec *)) dlsym(RTLD_NEXT, "clock_gettime");
	rc = real(id, ts);
	if (rc == 0 && id == CLOCK_REALTIME)
		ts->tv_sec += control->clock_offset / 1000000;
	return rc;
}

int
gettimeofday(struct timeval *restrict tv, void *restrict tz)
{
	struct timespec ts;

	(void) tz;
	if (clock_gettime(CLOCK_REALTIME, &ts) != 0)
		return -1;
	tv->tv_sec = ts.tv_sec;
	tv->tv_usec = ts.tv_nsec / 1000;
	return 0;
}

time_t
time(time_t *t)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	if (t != NULL)
		*t = ts.tv_sec;
	return ts.tv_sec;
}
