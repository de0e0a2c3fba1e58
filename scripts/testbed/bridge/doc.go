// Package bridge holds the end-to-end tests of cc-ci-bridge: the real program between a real Gitea and a real Drone.
package bridge
