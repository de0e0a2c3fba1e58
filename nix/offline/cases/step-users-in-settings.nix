# services.cc-ci.runner.settings: DRONE_RUNNER_USER takes other rights for the unit, which only stepUsers gives
{ services.cc-ci.runner.settings.DRONE_RUNNER_USER = "20000-20099"; }
