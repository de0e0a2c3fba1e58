# The option `systemd.services.cc-ci-runner.environment.PATH' has conflicting definition values
{ systemd.services.cc-ci-runner.environment.PATH = "/usr/bin"; }
