# The commands of the README. Everything else is cargo: see CONTRIBUTING.md.

# Builds stay outside of the clone unless CARGO_TARGET_DIR says otherwise; `.ci/run` uses the same place.
ifeq ($(strip $(CARGO_TARGET_DIR)),)
CARGO_TARGET_DIR := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/raystream-target
endif
export CARGO_TARGET_DIR

# How long `make faults` lasts, and how it is built. FAULTS_SEED repeats the choices of a run; without it each run has others.
FAULTS_SECONDS ?= 300
FAULTS_BUILD ?= --release
export FAULTS_SECONDS

.PHONY: demo test faults profiled

demo:
	.ci/setup
	cargo build --release --locked -p raystream -p raystream-samples
	sh clients/demo.sh

test:
	.ci/run

faults:
	.ci/setup
	cargo test $(FAULTS_BUILD) --locked --test faults -- --ignored --exact for_minutes --nocapture

# The fastest program: built twice, the second time with what a load has shown of the first. Prints where it is.
profiled:
	.ci/setup
	sh benches/profiled.sh
