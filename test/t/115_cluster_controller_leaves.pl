# The controller leaves: who has not heard of that yet asks it, or looks for it, and has
# to wait for the next one instead of an error.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PgtopicCluster;
use PgtopicTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# so long that the others look for another controller well after it has left
my $cluster = PgtopicCluster->new(brokers => 3, conf => "pgtopic.broker_session_timeout = '2s'");
$cluster->create;
$cluster->wait_until(1, 'SELECT count(*) FROM broker_status WHERE is_controller', 'there is a controller', '1');

my $controller = $cluster->ask_ok(1, 'SELECT broker FROM broker_status WHERE is_controller');
my @others = grep { $_ != $controller } 1 .. 3;
$cluster->leave($controller);
# a change on each at once, while both take for the controller what is none
for my $broker (@others)
{
	is($cluster->ask($broker, "SELECT create_topic('of$broker')") // $cluster->{brokers}[$broker]{asked_error},
		"of$broker", "a change on broker $broker waits for the next controller");
	is($cluster->ask($broker, "SELECT topic FROM topic_status WHERE topic = 'of$broker'"), "of$broker", '... and is made');
}

$cluster->stop_all;
$cluster->log_clean(faults => 1);
done_testing();
