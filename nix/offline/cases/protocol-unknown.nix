# is not of type `one of "http", "https"'
{ services.cc-ci.runner.settings.DRONE_RPC_PROTO = "gopher"; }
