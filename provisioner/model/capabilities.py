"""What an account broker can do, for people to see and for services to plan by."""

from dataclasses import dataclass

from provisioner.model import names


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """refuses_subscribe: a foreign filter is refused; False: it is granted, and nothing comes through it.
    checks_client_id: a user under a client id that is not its to use is refused; False: the broker knows a device by
    its user alone, so that the client id a device gives has no meaning and takes nothing from anybody.
    loose: LOOSE coupling is honoured; False: every user is bound to its device, as by STRICT (EC-26).
    reports_leaving: a device that leaves is sighted too.
    refusal_disconnects: a refused SUBSCRIBE or PUBLISH ends the connection.
    client_id_forbidden: characters that a client id must not have there, each of them.
    certificate_logins: a device is known by its certificate alone, whose common name is ``<account>/<client id>``.
    home_characters_max: of that name; None where it has no such limit.
    client_ids_shared: all accounts there have one space of client ids, so that one of them belongs to one account.
    home_usernames: a user called ``<account>/<client id>`` costs next to nothing there, one of any other name does.
    keeps_users: it lets in who it was told of while the service is away; False: the users are in our memory, and all
    of them are put before it is started, so that nobody is refused who may come in.
    """

    kicks: bool
    reports_sightings: bool
    refuses_subscribe: bool
    mqtt5: bool
    checks_client_id: bool = True
    loose: bool = True
    reports_leaving: bool = True
    refusal_disconnects: bool = False
    client_id_forbidden: str = ""
    certificate_logins: bool = False
    home_characters_max: int | None = None
    client_ids_shared: bool = False
    home_usernames: bool = False
    users_max: int | None = None
    keeps_users: bool = True

    def home_username(self, account: str, client_id: str) -> str | None:
        """What that device's user had best be called there; None where one name is as good as another."""
        home = f"{account}/{client_id}"
        is_one = self.home_usernames and names.is_plain(client_id) and len(home) <= names.USERNAME_CHARACTERS_MAX
        return home if is_one else None

    def refuses(self, account: str, client_id: str) -> str | None:
        """The rule that this client id breaks there, None when it breaks none."""
        if any(c in self.client_id_forbidden for c in client_id):
            return f"must not contain any of {self.client_id_forbidden!r}"
        longest = self.home_characters_max
        if longest is not None and len(account) + 1 + len(client_id) > longest:
            return f"must be at most {longest - 1 - len(account)} characters"
        return None
