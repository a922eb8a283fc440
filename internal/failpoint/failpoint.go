// Package failpoint names places in the code at which a test wants the process to die: not about
// there and a little later, as a signal from outside does, but exactly there. A program that is built
// with the tag failpoint kills itself with SIGKILL at the place that PAWL_FAILPOINT names, or waits there
// while the test kills somebody else; in every other build, Hit is an empty function that the compiler
// leaves out.
package failpoint
