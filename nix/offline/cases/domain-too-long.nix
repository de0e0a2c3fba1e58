# Docker takes secrets' names up to 64 characters
{ lib, ... }: { services.cc-ci.traefik.domain = lib.mkForce "a-name-that-is-much-longer-than-what-docker-takes.ci.example.org"; }
