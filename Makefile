# make, make install       build and install for the PostgreSQL of PG_CONFIG (PGXS)
# make demo, demo-stop     the main job on this machine's package history, by three brokers
# make test                everything that is tested; check-* are its parts
# The latter install what they miss first, so this file must work before there is a pg_config.

PG_CONFIG_GIVEN := $(PG_CONFIG)
PG_CONFIG_FOUND := $(shell PG_CONFIG='$(PG_CONFIG_GIVEN)' sh test/scripts/find-pg-config.sh)

MODULE_big = pgtopic
OBJS = $(patsubst %.c,%.o,$(wildcard src/*.c src/*/*.c))
EXTENSION = extension/pgtopic
DATA = $(wildcard extension/pgtopic--*.sql)
EXTRA_CLEAN = $(OBJS:.o=.d) .build-config

# Brokers speak to each other through libpq.
PG_CPPFLAGS = -Isrc -I$(libpq_srcdir)
SHLIB_LINK_INTERNAL = $(libpq)
# PostgreSQL's interfaces make unused parameters unavoidable, and its PG_TRY provokes "might be clobbered".
PG_CFLAGS = -Wall -Wextra -Wno-unused-parameter -Wno-clobbered -MMD -MP
# Only where it is asked for (the tests do), so that a newer compiler's new warnings stop nobody from building.
ifeq ($(WERROR),1)
PG_CFLAGS += -Werror
endif

NO_INSTALLCHECK = 1

# The default target, whatever is included below.
all:

ifneq ($(PG_CONFIG_FOUND),)

override PG_CONFIG := $(PG_CONFIG_FOUND)
# Bitcode is for JIT to inline functions, is of no use for ours, and needs clang.
override with_llvm = no
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

# Objects depend on their headers, on this file, and on the PostgreSQL that they were compiled for.
-include $(OBJS:.o=.d)
$(OBJS): Makefile .build-config

.build-config: FORCE
	@$(PG_CONFIG) | cmp -s - $@ || $(PG_CONFIG) > $@

else

all install installdirs uninstall:
	@echo 'No PostgreSQL 15 or later with server headers found. Install its server development package' >&2; \
	echo '(Debian, Ubuntu: postgresql-server-dev-NN; "make deps" does), or set PG_CONFIG=/path/to/pg_config.' >&2; \
	exit 1

clean distclean maintainer-clean:
	rm -f $(OBJS) $(EXTRA_CLEAN) pgtopic.so

endif

SCRIPT = MAKE='$(MAKE)' PG_CONFIG='$(PG_CONFIG_GIVEN)'

# Installs, through apt, what a build and the tests need.
deps:
	@$(SCRIPT) test/scripts/install-deps.sh

test:
	@$(SCRIPT) test/scripts/run-tests.sh

# One part of the tests each. REGRESS_TESTS="a b", ISOLATION_TESTS="a b", TAP="test/t/010_a.pl", DURATION=seconds choose.
check-deps check-unit check-regress check-isolation check-tap check-checker: check-%:
	@$(SCRIPT) test/scripts/run-tests.sh $*

installcheck:
	@$(SCRIPT) test/scripts/run-tests.sh regress isolation

demo:
	@$(SCRIPT) test/demo/demo.sh

demo-stop:
	@$(SCRIPT) test/demo/demo-stop.sh

# As servers run: with fsync.
bench:
	@$(SCRIPT) test/scripts/with-server.sh --build --copy -o 'fsync = on' test/bench/run.sh

# Three of them, as a cluster.
bench-cluster:
	@$(SCRIPT) test/scripts/with-server.sh --build --copy --servers 3 -o 'fsync = on' test/bench/cluster.sh

# A topic as a relation: COPY and SELECT.
bench-relation:
	@$(SCRIPT) test/scripts/with-server.sh --build --copy -o 'fsync = on' test/bench/relation.sh

# How long a dead leader is missed.
bench-failover:
	@$(SCRIPT) test/scripts/with-server.sh --build --copy --servers 3 -o 'fsync = on' test/bench/cluster.sh failover

# The history checker for longer, on one server, three and five brokers in turns: DURATION=seconds in all, an hour.
torture:
	@$(SCRIPT) DURATION='$(DURATION)' test/checker/torture.sh

test-versions:
	@$(SCRIPT) test/scripts/test-versions.sh

FORCE:

.PHONY: all install installdirs uninstall clean distclean maintainer-clean FORCE deps test installcheck \
	check-deps check-unit check-regress check-isolation check-tap check-checker \
	demo demo-stop bench bench-cluster bench-failover bench-relation torture test-versions
