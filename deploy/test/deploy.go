// Package deploy holds no code: its tests read what deploys Pawl (Dockerfile, docker-compose.yml and
// what those name), build what the Dockerfile builds, and run the image of a release, on machines without a Docker engine too. It
// is a module of its own so that the parsers stay out of the product's go.mod.
package deploy
