// Package e2e holds the tests that run the built program against a real Kafka and break both:
// processes are killed and frozen, brokers restarted, answers lost on the wire.
//
// The tests stand behind the build tag chaos and need Linux, for its signals and for /proc. Each of
// them counts its faults, and checks three kinds of truth: what a reader sees at any time, that all
// comes to rest after the last fault, and that in the end every input is there once, which is for
// internal/verify to say.
//
//	go test -tags chaos ./internal/e2e -run Faults -seed 7   # the same order of faults again
//	go test -tags chaos ./internal/e2e -long                 # longer outages, more faults
//
// The files tempest_*_test.go are one test: a script of random faults against everything at once, three
// brokers, database, endpoint and processors, written by a seed and kept, so that it can be done again.
//
//	make tempest SEED=7 DURATION=30m RATE=2800 ORDERS=120
package e2e
