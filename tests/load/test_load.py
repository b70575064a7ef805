"""The load script itself, small: nobody's answer is lost, wrong, or another's."""

from tests.load.load import main


def test_sixty_four_clients_get_their_own_answers_while_others_leave_or_send_nonsense(capsys):
    assert main(["--clients", "64", "--requests", "32", "--bad", "24", "--leaving", "8"]) == 0, (
        capsys.readouterr().out
    )
