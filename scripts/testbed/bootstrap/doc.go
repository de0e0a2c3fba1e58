// Package bootstrap holds the tests of what sets a CI host up: scripts/bootstrap-drone-oauth against a real Gitea and a real
// Drone, and the commands of docs/install.md.
package bootstrap
