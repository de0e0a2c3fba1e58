# has no key unknown_secret
{ sops.secrets.unknown_secret = { }; }
