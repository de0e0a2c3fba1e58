# stepUsers and DRONE_RUNNER_DOCKER=host exclude each other; set it to proxy or none.
{ lib, ... }: {
  services.cc-ci.runner.stepUsers = "20000-20099";
  services.cc-ci.runner.settings.DRONE_RUNNER_DOCKER = lib.mkForce "host";
}
