# Holdfast: the two commands of the README are `make run` and `make test`.
# Every target uses the one release profile, because RocksDB takes ten minutes to build.

SHELL := /bin/bash
CARGO ?= cargo
HOLDFAST := $(or $(CARGO_TARGET_DIR),target)/release/holdfast
# Built with the whole workspace, whose features the other targets have compiled already.
EXAMPLES := $(or $(CARGO_TARGET_DIR),target)/release/examples

.PHONY: build run test verify fix bench profile demo kills overload surge pauses crowd polls followers stale api-fuzz quorum sim chaos collection wide-folder wide-folder-10m rewind largest-file delta clients tools clean

# RocksDB's bindings need libclang, and a test runs the README's tour by curl. As root on Debian we install them; otherwise we say what is
# missing.
tools:
	@if ! ls /usr/lib/llvm-*/lib/libclang.so* /usr/lib/*/libclang*.so* >/dev/null 2>&1; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "installing clang for RocksDB's bindings"; apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq clang libclang-dev >/dev/null; \
	  else echo "missing: libclang (Debian: apt-get install -y clang libclang-dev)"; exit 1; fi; fi
	@command -v curl >/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "installing curl for the README's tour"; apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq curl >/dev/null; \
	  else echo "missing: curl (Debian: apt-get install -y curl)"; exit 1; fi; }
	@command -v g++ >/dev/null || { echo "missing: a C++ compiler (Debian: apt-get install -y build-essential)"; exit 1; }
	@command -v $(CARGO) >/dev/null || { echo "missing: Rust 1.95 (https://rustup.rs)"; exit 1; }

build: tools
	$(CARGO) build --release --locked --bins
	@if [ -n "$(CARGO_TARGET_DIR)" ] && [ "$(CARGO_TARGET_DIR)" != target ]; then mkdir -p target/release && cp -f $(HOLDFAST) target/release/holdfast; fi

run: build
	exec $(HOLDFAST) dev $(ARGS)

test: tools
	@if command -v cargo-nextest >/dev/null; then \
	  $(CARGO) nextest run --release --locked --workspace --lib --bins --tests && $(CARGO) test --release --locked --workspace --doc -q; \
	else $(CARGO) test --release --locked --workspace; fi

# Never writes.
verify: tools
	$(CARGO) fmt --all --check
	$(CARGO) clippy --release --locked --workspace --all-targets -- -D warnings
	$(CARGO) test --release --locked --test tidy

fix:
	$(CARGO) fmt --all
	HOLDFAST_FIX=1 $(CARGO) test --release --test tidy -q the_requirement_map || true

# Figures beside the machine's limits and the goals: about five minutes and four gigabytes of disk. ARGS=--one-process for one process,
# ARGS=--largest-upload for a 10 GiB file as well, ARGS=--quick to see that it runs, ARGS="--largest-upload --require-goals" to fail
# unless every goal is reached.
bench: build
	$(HOLDFAST) --version
	$(CARGO) run --release --locked -p chaos --bin bench -- --holdfast $(HOLDFAST) $(ARGS)

# Where the CPU time of a PUT, a GET and of commits goes: flame graphs into docs/profiles. Needs perf; exit code 3 says what to install.
profile: build
	$(CARGO) run --release --locked -p chaos --bin profile -- --holdfast $(HOLDFAST) $(ARGS)

demo: build
	$(CARGO) run --release --locked -p chaos --bin demo -- --holdfast $(HOLDFAST) $(ARGS)

# How long writes stand still when the leader of a drive's group is killed (50 times) or paused (10 times), by the timing of replicas
# near each other and far, and what three gateways tell meanwhile; then the same of four groups, of which each blow costs two or more
# their leader. About thirteen minutes.
kills: build
	$(CARGO) run --release --locked -p chaos --bin kills -- --holdfast $(HOLDFAST) $(ARGS)
	$(CARGO) run --release --locked -p chaos --bin kills -- --holdfast $(HOLDFAST) --wan $(ARGS)
	$(CARGO) run --release --locked -p chaos --bin kills -- --holdfast $(HOLDFAST) --groups 4 $(ARGS)

# A gateway, the leader of a drive's group and a node stopped for a minute each in the middle of uploads' commits. About four minutes.
pauses: build
	$(CARGO) run --release --locked -p chaos --bin kills -- --holdfast $(HOLDFAST) --data-dir target/pauses --kills 0 --pauses 0 --long-pause 60 $(ARGS)

# The crowd of tests/cluster at its full scale: 100,000 connections opened at a gateway and left, all of them open at this side at once,
# in as many processes as the limit of descriptors asks for. Where root may raise it, the gateway holds more of them too.
CROWD ?= 100000
crowd: build
	@needed=$$(($(CROWD) + 2000)); allowed=$$(ulimit -Hn); \
	[ "$$allowed" = unlimited ] || [ "$$allowed" -ge "$$needed" ] || ulimit -Hn "$$needed" 2>/dev/null || echo "limited to $$allowed descriptors a process"; \
	[ $(CROWD) -ge 100000 ] || echo "CROWD=$(CROWD) IS LESS THAN THE FULL SCALE OF 100000"; \
	HOLDFAST_CROWD=$(CROWD) $(CARGO) test --release --locked --test cluster -- --nocapture a_crowd_that_opens_connections

# NF-scale-3: 15,000 polls by HTTP/1.1 and 200,000 by HTTP/2 that wait at one gateway, and how soon polls are told. About twelve minutes.
polls: build
	$(CARGO) run --release --locked -p chaos --bin polls -- --holdfast $(HOLDFAST) $(ARGS)

# Where tests of tests/cluster keep clusters of many gigabytes: /tmp may lie in memory, and what a test that was broken off leaves there is
# found by nobody.
LARGE_DIR := $(CURDIR)/target/large

.PHONY: install-snapshot purge long-upload bad-line notify-stopped singly devices links

# US-1.2 at its full scale: one upload of 10 GiB, cut at twenty places while three gateways die. Some minutes and twenty gigabytes of disk.
long-upload: build
	@mkdir -p "$(LARGE_DIR)"
	TMPDIR="$(LARGE_DIR)" HOLDFAST_UPLOAD=10240x20x3 $(CARGO) test --release --locked --test cluster -- --nocapture an_upload_goes_on_after_every_cut

# QAS-003 at its full scale: one upload of 10 GiB through a line with rounds of 300 ms that loses one segment of twenty and is reset
# twenty times. Half an hour and twenty gigabytes of disk.
bad-line: build
	@mkdir -p "$(LARGE_DIR)"
	TMPDIR="$(LARGE_DIR)" HOLDFAST_BAD_LINE=10240x20 $(CARGO) test --release --locked --test cluster -- --nocapture an_upload_goes_through_a_slow_line

# A replica that was away for a million entries of four groups is sent their snapshots under load, killed midway, and goes on; so is one
# of those that send them. Some minutes and some gigabytes of disk; ARGS=n for fewer entries.
install-snapshot: tools
	$(CARGO) build --release --locked --workspace --example install
	$(EXAMPLES)/install $(ARGS)

# What others notice while a folder of a million entries is removed for good. Some minutes and some gigabytes of disk; ARGS=n for fewer.
purge: tools
	$(CARGO) build --release --locked --workspace --example purge
	$(EXAMPLES)/purge $(ARGS)

# The followers of tests/cluster at their full scale: 100 drives, 10 followers each, 10,000 commits, and kills. About ten minutes.
followers: build
	HOLDFAST_FOLLOWERS=100x10x10000 $(CARGO) test --release --locked --test cluster -- --nocapture no_follower_misses_a_change

# D-2.4: commits with every process that notifies running and with all of them dead, in six pairs of turns. About six minutes.
notify-stopped: build
	$(CARGO) run --release --locked -p chaos --bin notify-stopped -- --holdfast $(HOLDFAST) $(ARGS)

# NF-net at its full scale: single transfers over links of 1 Gbit/s, and of 100 Mbit/s with 50 ms each way. About two minutes and four
# gigabytes of disk.
links: build
	$(CARGO) run --release --locked -p chaos --bin links -- --holdfast $(HOLDFAST) $(ARGS)

# US-2.1, the server's side, at its full scale: fifty trees, each changed a thousand times at random by three devices. About ten minutes.
devices: build
	HOLDFAST_DEVICES=50x1000 $(CARGO) test --release --locked --test cluster -- --nocapture three_devices_that_change_one_tree

# QAS-013 at its full scale: 100,000 writes at one of two gateways, each read at once at the other. About ten minutes.
stale: build
	$(CARGO) run --release --locked -p chaos --bin stale -- --holdfast $(HOLDFAST) $(ARGS)

# Requests made up from the OpenAPI document to every operation, by schemathesis, which is installed beneath target/. About six minutes.
SCHEMATHESIS ?= schemathesis==4.32.5
api-fuzz: build
	@test -x target/api-fuzz/venv/bin/schemathesis || { python3 -m venv target/api-fuzz/venv && target/api-fuzz/venv/bin/pip install -q $(SCHEMATHESIS); }
	$(CARGO) run --release --locked -p chaos --bin api-fuzz -- --holdfast $(HOLDFAST) $(ARGS)

# Three times the load that saturates the cluster: what is still done in time, and how soon all is as before. About five minutes.
overload: build
	$(CARGO) run --release --locked -p chaos --bin overload -- --holdfast $(HOLDFAST) $(ARGS)

# QAS-006 at its full scale: 480 small uploads a second for ten minutes, none of them denied or late. About twelve minutes and fifteen
# gigabytes of disk; ARGS="--seconds 60" for less.
surge: build
	$(CARGO) run --release --locked -p chaos --bin surge -- --holdfast $(HOLDFAST) $(ARGS)

# F1 at its full scale, for every new release of openraft: sixty seeds. About five minutes.
quorum: tools
	HOLDFAST_QUORUM_SEEDS=30 $(CARGO) test --release --locked --workspace --lib -- voters_acknowledge

# The simulated world: so many seeds, or one again with SEED=n, perhaps with a planted bug (PLANT=vote-unsynced). A second a seed.
# KIND=collection for worlds in which contents come, are shared and go for good, KIND=layout for those whose rows change.
SEEDS ?= 100
FIRST ?= 1
sim: tools
	$(CARGO) run --release --locked -q -p chaos --bin sim -- $(if $(SEED),--seed $(SEED),--seeds $(SEEDS) --first $(FIRST)) $(if $(KIND),--kind $(KIND)) $(if $(PLANT),--plant $(PLANT)) $(if $(OPERATIONS),--operations $(OPERATIONS)) $(ARGS)

# C-3 at its full scale: a hundred seeds of 10,000 operations each, every one printed as it ends and a failing one with the command that
# runs it again. Half an hour on two cores or more; SEEDS=n for fewer, FIRST=n to go on where it was broken off.
chaos:
	$(MAKE) sim OPERATIONS=10000

# N8 at its full scale: a million random steps in two hundred worlds of collection. WORLDS=n for other numbers of them.
WORLDS ?= 200
collection:
	$(MAKE) sim KIND=collection SEEDS=$(WORLDS) OPERATIONS=5000 ARGS="--steps $$(($(WORLDS) * 5000))"

# SC-in-3, N5 and N12 at their full scale: a million children in one folder, a tree of ten thousand files, ten minutes at rest beside
# 150,000 files, then a tree of a million. About seventeen minutes and four gigabytes of disk up to the rest, and for the million about
# as long as the part `batches` of `make delta` and, reckoned, nine gigabytes more; ARGS="--moved-files 0" to leave it out.
wide-folder: build
	$(CARGO) run --release --locked -p chaos --bin wide-folder -- --holdfast $(HOLDFAST) $(ARGS)

# NF-scale-1 at its full scale: ten million children, for the linear model of docs/scale.md. About an hour and fifteen gigabytes of disk.
wide-folder-10m: build
	$(CARGO) run --release --locked -p chaos --bin wide-folder -- --holdfast $(HOLDFAST) --children 10000000 --moved-files 0 $(ARGS)

# N6 at its full scale: ten thousand files of all sizes overwritten and rewound. About two minutes and a gigabyte of disk.
rewind: build
	$(CARGO) run --release --locked -p chaos --bin rewind -- --holdfast $(HOLDFAST) $(ARGS)

# C-4 at its full scale: a file of 10 GiB there and back, with the gateway under 150 MB of memory in the upload. A few minutes and twenty
# gigabytes of disk.
largest-file: build
	$(CARGO) run --release --locked -p chaos --bin largest-file -- --holdfast $(HOLDFAST) $(ARGS)

# What delta sync asks of the wire, and batches and repeated contents of the disks, each held against its figure. Some minutes for each
# of the nine parts and 20 GB of disk, of which ARGS="--largest 1073741824 --files 100000" takes most away; ARGS="--only lists,growth" for
# some of lists, single-byte, growth, compression, twice, batches, largest, singly and mix.
delta: build
	$(CARGO) run --release --locked -p chaos --bin delta -- --holdfast $(HOLDFAST) $(ARGS)

# N9 at a tenth of its scale: 100,000 files of 4 KiB put one by one, and packed once they have lain still. About fifteen minutes and four
# gigabytes of disk; ARGS="--singly 1000000" for all of them, in two hours.
singly: build
	$(CARGO) run --release --locked -p chaos --bin delta -- --holdfast $(HOLDFAST) --only singly $(ARGS)

# Clients that others wrote (tuspy, Google's for python) upload 1 GiB each across cuts and deaths of gateways. About five minutes, 10 GiB of
# disk, and the machine's registry of Python packages. ARGS="--bytes 268435456" for less.
clients: build
	@command -v python3 >/dev/null && python3 -c 'import ensurepip, venv' 2>/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "installing python3-venv for the clients' environment"; apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv >/dev/null; \
	  else echo "missing: python3 with venv (Debian: apt-get install -y python3-venv)"; exit 1; fi; }
	python3 -B tests/clients/run.py --holdfast $(HOLDFAST) $(ARGS)

clean:
	$(CARGO) clean
