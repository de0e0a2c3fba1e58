# services.cc-ci.runner.settings: holds a secret, which everyone could read
{ services.cc-ci.runner.settings.DRONE_RPC_SECRET = "everyone knows"; }
