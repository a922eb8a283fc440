// Package arch holds no code: its test keeps the table of packages: who may know whom.
package arch
