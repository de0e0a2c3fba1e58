# services.cc-ci.bridge.credentials: the bridge does not read drone_webhok_secret; look for a spelling mistake.
{ services.cc-ci.bridge.credentials.drone_webhok_secret = "/run/a"; }
