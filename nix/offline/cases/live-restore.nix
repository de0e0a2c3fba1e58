# Docker refuses to run a Swarm with live-restore; set virtualisation.docker.liveRestore = false.
{ virtualisation.docker.liveRestore = true; }
