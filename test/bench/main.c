/*
 * main.c
 *		bench NAME: runs one of the benchmarks.
 */
#include "bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int
main(int argc, char **argv)
{
	static const struct
	{
		const char *name;
		void		(*run) (const Settings *);
	}			benchmarks[] = {
		{"batch", bench_batch},
		{"read", bench_read},
		{"latency", bench_latency},
		{"cost", bench_cost},
		{"wal", bench_wal},
		{"cluster-batch", bench_cluster_batch},
		{"cluster-single", bench_cluster_single},
		{"failover", bench_failover}
	};
	const char *rounds = getenv("BENCH_ROUNDS");
	const char *quick = getenv("BENCH_QUICK");
	Settings	settings;

	settings.quick = quick != NULL && strcmp(quick, "1") == 0;
	settings.rounds = rounds != NULL && atoi(rounds) > 0 ? atoi(rounds) : settings.quick ? 3 : 5;
	for (size_t i = 0; argc == 2 && i < sizeof(benchmarks) / sizeof(benchmarks[0]); i++)
		if (strcmp(argv[1], benchmarks[i].name) == 0)
		{
			benchmarks[i].run(&settings);
			return 0;
		}
	fprintf(stderr, "usage: bench batch|read|latency|cost|wal|cluster-batch|cluster-single|failover\n");
	return 2;
}
