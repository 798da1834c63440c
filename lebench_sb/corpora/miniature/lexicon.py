"""Words of the miniature: French, English, Spanish and Portuguese, written for it and free of licence.

Lines are `French; English; Spanish; Portuguese`. Nouns and adjectives are given in the singular (masculine),
nouns with `:m` or `:f`; people as `masculine feminine`; verbs as `infinitive [present 3sg [participle]]`.
Missing forms follow the regular rules of `inflect.py`. `_` stands for a space. The order of a list is the
order of frequency.
"""

FIRST_NAMES_F = """Marie Julie Sophie Camille Claire Léa Anne Chloé Louise Nathalie Emma Isabelle Alice
Pauline Lucie Sarah Mathilde Inès Jeanne Catherine Manon Hélène Juliette Nadia Margot Élise Charlotte
Valérie Zoé Fatima Aurélie Céline Lina Sandrine Agathe Monique Rose Yasmine Clémence Noémie Adèle Béatrice
Amandine Romane Sylvie Gaëlle Justine Odile Mélanie Estelle Capucine Florence Apolline Brigitte Solène
Victoire Bérénice Colette Delphine Eugénie Félicie Gisèle Huguette Joséphine""".split()

FIRST_NAMES_M = """Pierre Thomas Nicolas Paul Antoine Lucas Julien Louis Hugo Philippe Karim Mathieu Gabriel
Marc Alexandre Vincent Olivier Jules Maxime Arthur Laurent Adrien Raphaël Samuel Benoît Léon Simon Guillaume
Étienne Mohamed Baptiste Victor Damien Xavier Théo Jérôme Fabien Quentin Bastien Romain Gilles Sébastien
Cédric Yves Augustin Rémi Thierry Malik Florian Gaspard Tristan Valentin Édouard Armand Corentin Ulysse
Bertrand Clovis Ferdinand Gontran Hippolyte Isidore Lazare Maurice""".split()

LAST_NAMES = """Martin Bernard Dubois Robert Petit Durand Leroy Moreau Laurent Girard Lefèvre Roux Fournier
Morel Garnier Faure Rousseau Blanc Guérin Boyer Chevalier Lambert Fontaine Renard Mercier Dupont Bonnet
Gauthier Perrin Masson Colin Vidal Caron Marchand Barbier Brun Dumont Picard Lacroix Meunier Deschamps Fabre
Poirier Rivière Aubert Besson Charpentier Lemaire Delorme Bailly Perrot Cordier Hamon Joubert Maillard
Vasseur Bouvier Pelletier Langlois Tessier Boulanger Germain Hubert Millet Carpentier Royer Collet Prévost
Benoît Guillot Tanguy Ferrand Lebrun Schmitt Bourdon Chauvin Descamps Etchegaray Kermarec Lacombe Mallet
Navarro Ollivier Pruvost Raynaud Savary Tardieu Vallet""".split()

CITIES = """Paris Lyon Marseille Toulouse Nice Nantes Bordeaux Lille Strasbourg Rennes Grenoble Montpellier
Avignon Dijon Tours Brest Reims Angers Metz Nancy Orléans Rouen Caen Toulon Limoges Perpignan Annecy
Besançon Amiens Poitiers Pau Bayonne Colmar Cannes Antibes Valence Chambéry Quimper Vannes Lorient Calais
Dunkerque Arras Troyes Chartres Bourges Nevers Auxerre Mâcon Vichy Aurillac Albi Carcassonne Narbonne
Béziers Nîmes Arles Gap Digne Bastia Ajaccio Bruxelles Genève Londres Madrid Lisbonne Rome Berlin Montréal
Dakar Tunis Alger Saumur Cognac Angoulême Niort Laval Épinal Mulhouse Belfort Vesoul Roanne Tarbes Lourdes
Biarritz Agen Cahors Rodez Sète Menton Royan Dieppe Honfleur Beaune Cluny Dole Évreux Fréjus Grasse Hyères
Issoire Lunéville Millau Nemours Orange Privas Redon Sedan Tulle Uzès Vitré Yvetot""".split()
# only names that change between languages
CITY_NAMES = """Paris;Paris;París;Paris
Marseille;Marseille;Marsella;Marselha
Lyon;Lyon;Lyon;Lyon
Nice;Nice;Niza;Nice
Bordeaux;Bordeaux;Burdeos;Bordéus
Strasbourg;Strasbourg;Estrasburgo;Estrasburgo
Bruxelles;Brussels;Bruselas;Bruxelas
Genève;Geneva;Ginebra;Genebra
Londres;London;Londres;Londres
Lisbonne;Lisbon;Lisboa;Lisboa
Rome;Rome;Roma;Roma
Berlin;Berlin;Berlín;Berlim
Montréal;Montreal;Montreal;Montreal
Tunis;Tunis;Túnez;Tunes
Alger;Algiers;Argel;Argel
Perpignan;Perpignan;Perpiñán;Perpinhã"""

# "French with its preposition; English; Spanish; Portuguese with its article"
COUNTRIES = """en Italie;Italy;Italia;a Itália
en Espagne;Spain;España;a Espanha
au Portugal;Portugal;Portugal;Portugal
en Belgique;Belgium;Bélgica;a Bélgica
en Allemagne;Germany;Alemania;a Alemanha
en Suisse;Switzerland;Suiza;a Suíça
au Canada;Canada;Canadá;o Canadá
au Japon;Japan;Japón;o Japão
au Maroc;Morocco;Marruecos;o Marrocos
en Grèce;Greece;Grecia;a Grécia
au Brésil;Brazil;Brasil;o Brasil
en Tunisie;Tunisia;Túnez;a Tunísia
en Irlande;Ireland;Irlanda;a Irlanda
au Sénégal;Senegal;Senegal;o Senegal
en Chine;China;China;a China
en Norvège;Norway;Noruega;a Noruega
au Mexique;Mexico;México;o México
en Suède;Sweden;Suecia;a Suécia
en Pologne;Poland;Polonia;a Polônia
au Pérou;Peru;Perú;o Peru
en Autriche;Austria;Austria;a Áustria
en Islande;Iceland;Islandia;a Islândia
au Vietnam;Vietnam;Vietnam;o Vietnã
en Argentine;Argentina;Argentina;a Argentina
au Cameroun;Cameroon;Camerún;os Camarões
en Finlande;Finland;Finlandia;a Finlândia
en Hongrie;Hungary;Hungría;a Hungria
au Danemark;Denmark;Dinamarca;a Dinamarca"""

THINGS = """livre:m;book;libro:m;livro:m
table:f;table;mesa:f;mesa:f
voiture:f;car;coche:m;carro:m
clé:f;key;llave:f;chave:f
téléphone:m;telephone;teléfono:m;telefone:m
chaise:f;chair;silla:f;cadeira:f
lampe:f;lamp;lámpara:f;lâmpada:f
sac:m;bag;bolso:m;saco:m
vélo:m;bicycle;bicicleta:f;bicicleta:f
lettre:f;letter;carta:f;carta:f
valise:f;suitcase;maleta:f;mala:f
montre:f;watch;reloj:m;relógio:m
couteau:m;knife;cuchillo:m;faca:f
bouteille:f;bottle;botella:f;garrafa:f
journal:m;newspaper;periódico:m;jornal:m
miroir:m;mirror;espejo:m;espelho:m
photo:f;photo;foto:f;foto:f
cahier:m;notebook;cuaderno:m;caderno:m
boîte:f;box;caja:f;caixa:f
tableau:m;painting;cuadro:m;quadro:m
guitare:f;guitar;guitarra:f;guitarra:f
parapluie:m;umbrella;paraguas:m;guarda-chuva:m
assiette:f;plate;plato:m;prato:m
ordinateur:m;computer;ordenador:m;computador:m
horloge:f;clock;reloj:m;relógio:m
bague:f;ring;anillo:m;anel:m
tapis:m;carpet;alfombra:f;tapete:m
cadeau:m;gift;regalo:m;presente:m
bateau:m;boat;barco:m;barco:m
piano:m;piano;piano:m;piano:m
armoire:f;wardrobe;armario:m;armário:m
casserole:f;saucepan;cacerola:f;panela:f
marteau:m;hammer;martillo:m;martelo:m
crayon:m;pencil;lápiz:m;lápis:m
carte:f;card;tarjeta:f;carta:f
ballon:m;ball;balón:m;balão:m
échelle:f;ladder;escalera:f;escada:f
bougie:f;candle;vela:f;vela:f
camion:m;truck;camión:m;caminhão:m
fauteuil:m;armchair;sillón:m;poltrona:f
rideau:m;curtain;cortina:f;cortina:f
stylo:m;pen;bolígrafo:m;caneta:f
violon:m;violin;violín:m;violino:m
poupée:f;doll;muñeca:f;boneca:f
tasse:f;cup;taza:f;xícara:f
outil:m;tool;herramienta:f;ferramenta:f
couverture:f;blanket;manta:f;manta:f
radio:f;radio;radio:f;rádio:m
tambour:m;drum;tambor:m;tambor:m
vase:m;vase;jarrón:m;vaso:m
collier:m;necklace;collar:m;colar:m
jouet:m;toy;juguete:m;brinquedo:m
étagère:f;shelf;estantería:f;estante:f
balance:f;scale;balanza:f;balança:f
trompette:f;trumpet;trompeta:f;trombeta:f
aspirateur:m;vacuum_cleaner;aspirador:m;aspirador:m
charrette:f;cart;carreta:f;carroça:f
chaudron:m;cauldron;caldero:m;caldeirão:m
boussole:f;compass;brújula:f;bússola:f
enveloppe:f;envelope;sobre:m;envelope:m
harpe:f;harp;arpa:fe;harpa:f
moteur:m;engine;motor:m;motor:m
oreiller:m;pillow;almohada:f;travesseiro:m
peigne:m;comb;peine:m;pente:m
pinceau:m;paintbrush;pincel:m;pincel:m
serrure:f;lock;cerradura:f;fechadura:f
tiroir:m;drawer;cajón:m;gaveta:f
tondeuse:f;lawnmower;cortadora:f;cortadora:f
trottinette:f;scooter;patinete:m;patinete:m
vitrine:f;display_case;vitrina:f;vitrina:f"""

CLOTHES = """robe:f;dress;vestido:m;vestido:m
chemise:f;shirt;camisa:f;camisa:f
manteau:m;coat;abrigo:m;casaco:m
chapeau:m;hat;sombrero:m;chapéu:m
pantalon:m;pair_of_trousers;pantalón:m;calça:f
veste:f;jacket;chaqueta:f;jaqueta:f
jupe:f;skirt;falda:f;saia:f
écharpe:f;scarf;bufanda:f;echarpe:f
chaussure:f;shoe;zapato:m;sapato:m
pull:m;sweater;jersey:m;pulôver:m
gant:m;glove;guante:m;luva:f
casquette:f;cap;gorra:f;boné:m
ceinture:f;belt;cinturón:m;cinto:m
cravate:f;tie;corbata:f;gravata:f
botte:f;boot;bota:f;bota:f
foulard:m;headscarf;pañuelo:m;lenço:m
chaussette:f;sock;calcetín:m;meia:f
imperméable:m;raincoat;impermeable:m;impermeável:m
costume:m;suit;traje:m;terno:m
bonnet:m;woolly_hat;gorro:m;gorro:m
tablier:m;apron;delantal:m;avental:m
sandale:f;sandal;sandalia:f;sandália:f
blouson:m;windbreaker;cazadora:f;blusão:m
gilet:m;waistcoat;chaleco:m;colete:m"""

FOODS = """pomme:f;apple;manzana:f;maçã:f
gâteau:m;cake;pastel:m;bolo:m
soupe:f;soup;sopa:f;sopa:f
fromage:m;cheese;queso:m;queijo:m
salade:f;salad;ensalada:f;salada:f
poulet:m;chicken;pollo:m;frango:m
orange:f;orange;naranja:f;laranja:f
tarte:f;tart;tarta:f;torta:f
poisson:m;fish;pescado:m;peixe:m
tomate:f;tomato;tomate:m;tomate:m
sandwich:m;sandwich;bocadillo:m;sanduíche:m
crêpe:f;pancake;crep:m;crepe:m
fraise:f;strawberry;fresa:f;morango:m
croissant:m;croissant;cruasán:m;croissant:m
poire:f;pear;pera:f;pera:f
glace:f;ice_cream;helado:m;sorvete:m
citron:m;lemon;limón:m;limão:m
carotte:f;carrot;zanahoria:f;cenoura:f
omelette:f;omelette;tortilla:f;omelete:f
biscuit:m;biscuit;galleta:f;biscoito:m
cerise:f;cherry;cereza:f;cereja:f
champignon:m;mushroom;champiñón:m;cogumelo:m
jambon:m;ham;jamón:m;presunto:m
banane:f;banana;plátano:m;banana:f
oignon:m;onion;cebolla:f;cebola:f
pêche:f;peach;melocotón:m;pêssego:m
brioche:f;brioche;brioche:m;brioche:m
melon:m;melon;melón:m;melão:m
saucisse:f;sausage;salchicha:f;salsicha:f
concombre:m;cucumber;pepino:m;pepino:m
confiture:f;jam;mermelada:f;geleia:f
ananas:m;pineapple;piña:f;abacaxi:m
haricot:m;bean;frijol:m;feijão:m
prune:f;plum;ciruela:f;ameixa:f
gaufre:f;waffle;gofre:m;waffle:m
homard:m;lobster;bogavante:m;lagosta:f
abricot:m;apricot;albaricoque:m;damasco:m
courgette:f;courgette;calabacín:m;abobrinha:f
framboise:f;raspberry;frambuesa:f;framboesa:f
aubergine:f;aubergine;berenjena:f;berinjela:f
yaourt:m;yoghurt;yogur:m;iogurte:m
purée:f;mash;puré:m;purê:m
huître:f;oyster;ostra:f;ostra:f
noisette:f;hazelnut;avellana:f;avelã:f
raisin:m;grape;uva:f;uva:f
citrouille:f;pumpkin;calabaza:f;abóbora:f
navet:m;turnip;nabo:m;nabo:m
beignet:m;doughnut;buñuelo:m;sonho:m"""

PLACES = """maison:f;house;casa:f;casa:f
école:f;school;escuela:f;escola:f
jardin:m;garden;jardín:m;jardim:m
église:f;church;iglesia:f;igreja:f
musée:m;museum;museo:m;museu:m
village:m;village;pueblo:m;vilarejo:m
gare:f;station;estación:f;estação:f
château:m;castle;castillo:m;castelo:m
rue:f;street;calle:f;rua:f
place:f;square;plaza:f;praça:f
pont:m;bridge;puente:m;ponte:f
marché:m;market;mercado:m;mercado:m
plage:f;beach;playa:f;praia:f
hôpital:m;hospital;hospital:m;hospital:m
parc:m;park;parque:m;parque:m
forêt:f;forest;bosque:m;floresta:f
bibliothèque:f;library;biblioteca:f;biblioteca:f
restaurant:m;restaurant;restaurante:m;restaurante:m
théâtre:m;theatre;teatro:m;teatro:m
ferme:f;farm;granja:f;fazenda:f
quartier:m;neighbourhood;barrio:m;bairro:m
boulangerie:f;bakery;panadería:f;padaria:f
usine:f;factory;fábrica:f;fábrica:f
tour:f;tower;torre:f;torre:f
rivière:f;river;río:m;rio:m
montagne:f;mountain;montaña:f;montanha:f
bureau:m;office;oficina:f;escritório:m
piscine:f;swimming_pool;piscina:f;piscina:f
aéroport:m;airport;aeropuerto:m;aeroporto:m
cathédrale:f;cathedral;catedral:f;catedral:f
magasin:m;shop;tienda:f;loja:f
stade:m;stadium;estadio:m;estádio:m
lac:m;lake;lago:m;lago:m
pharmacie:f;pharmacy;farmacia:f;farmácia:f
port:m;harbour;puerto:m;porto:m
colline:f;hill;colina:f;colina:f
mairie:f;town_hall;ayuntamiento:m;prefeitura:f
chapelle:f;chapel;capilla:f;capela:f
cinéma:m;cinema;cine:m;cinema:m
vallée:f;valley;valle:m;vale:m
atelier:m;workshop;taller:m;oficina:f
cabane:f;hut;cabaña:f;cabana:f
grange:f;barn;granero:m;celeiro:m
phare:m;lighthouse;faro:m;farol:m
abbaye:f;abbey;abadía:f;abadia:f
moulin:m;mill;molino:m;moinho:m
préfecture:f;prefecture;prefectura:f;prefeitura:f
caserne:f;barracks;cuartel:m;quartel:m
librairie:f;bookshop;librería:f;livraria:f
tunnel:m;tunnel;túnel:m;túnel:m
verger:m;orchard;huerto:m;pomar:m
vignoble:m;vineyard;viñedo:m;vinhedo:m"""

ANIMALS = """chien:m;dog;perro:m;cachorro:m
chat:m;cat;gato:m;gato:m
cheval:m;horse;caballo:m;cavalo:m
oiseau:m;bird;pájaro:m;pássaro:m
vache:f;cow;vaca:f;vaca:f
lapin:m;rabbit;conejo:m;coelho:m
poule:f;hen;gallina:f;galinha:f
mouton:m;sheep;oveja:f;ovelha:f
souris:f;mouse;ratón:m;rato:m
canard:m;duck;pato:m;pato:m
loup:m;wolf;lobo:m;lobo:m
cochon:m;pig;cerdo:m;porco:m
chèvre:f;goat;cabra:f;cabra:f
renard:m;fox;zorro:m;raposa:f
tortue:f;turtle;tortuga:f;tartaruga:f
âne:m;donkey;burro:m;burro:m
singe:m;monkey;mono:m;macaco:m
abeille:f;bee;abeja:f;abelha:f
serpent:m;snake;serpiente:f;cobra:f
perroquet:m;parrot;loro:m;papagaio:m
écureuil:m;squirrel;ardilla:f;esquilo:m
grenouille:f;frog;rana:f;rã:f
ours:m;bear;oso:m;urso:m
papillon:m;butterfly;mariposa:f;borboleta:f
hérisson:m;hedgehog;erizo:m;ouriço:m
hibou:m;owl;búho:m;coruja:f
araignée:f;spider;araña:f;aranha:f
girafe:f;giraffe;jirafa:f;girafa:f
pigeon:m;pigeon;paloma:f;pombo:m
baleine:f;whale;ballena:f;baleia:f
cigogne:f;stork;cigüeña:f;cegonha:f
chameau:m;camel;camello:m;camelo:m
fourmi:f;ant;hormiga:f;formiga:f
guêpe:f;wasp;avispa:f;vespa:f
taureau:m;bull;toro:m;touro:m
zèbre:m;zebra;cebra:f;zebra:f"""

PEOPLE = """voisin voisine;neighbour;vecino vecina;vizinho vizinha
ami amie;friend;amigo amiga;amigo amiga
médecin médecin;doctor;médico médica;médico médica
professeur professeure;teacher;profesor profesora;professor professora
boulanger boulangère;baker;panadero panadera;padeiro padeira
étudiant étudiante;student;estudiante estudiante;estudante estudante
collègue collègue;colleague;colega colega;colega colega
directeur directrice;director;director directora;diretor diretora
chanteur chanteuse;singer;cantante cantante;cantor cantora
infirmier infirmière;nurse;enfermero enfermera;enfermeiro enfermeira
client cliente;customer;cliente cliente;cliente cliente
vendeur vendeuse;salesperson;vendedor vendedora;vendedor vendedora
journaliste journaliste;journalist;periodista periodista;jornalista jornalista
cuisinier cuisinière;cook;cocinero cocinera;cozinheiro cozinheira
enfant enfant;child;niño niña;menino menina
jardinier jardinière;gardener;jardinero jardinera;jardineiro jardineira
avocat avocate;lawyer;abogado abogada;advogado advogada
cousin cousine;cousin;primo prima;primo prima
facteur factrice;letter_carrier;cartero cartera;carteiro carteira
pharmacien pharmacienne;pharmacist;farmacéutico farmacéutica;farmacêutico farmacêutica
musicien musicienne;musician;músico música;músico música
policier policière;police_officer;policía policía;policial policial
coiffeur coiffeuse;hairdresser;peluquero peluquera;cabeleireiro cabeleireira
secrétaire secrétaire;secretary;secretario secretaria;secretário secretária
acteur actrice;actor;actor actriz;ator atriz
écrivain écrivaine;writer;escritor escritora;escritor escritora
danseur danseuse;dancer;bailarín bailarina;dançarino dançarina
fermier fermière;farmer;granjero granjera;fazendeiro fazendeira
peintre peintre;painter;pintor pintora;pintor pintora
mécanicien mécanicienne;mechanic;mecánico mecánica;mecânico mecânica
ingénieur ingénieure;engineer;ingeniero ingeniera;engenheiro engenheira
dentiste dentiste;dentist;dentista dentista;dentista dentista
patron patronne;boss;jefe jefa;chefe chefe
ouvrier ouvrière;worker;obrero obrera;operário operária
touriste touriste;tourist;turista turista;turista turista
juge juge;judge;juez jueza;juiz juíza
pompier pompière;firefighter;bombero bombera;bombeiro bombeira
architecte architecte;architect;arquitecto arquitecta;arquiteto arquiteta
photographe photographe;photographer;fotógrafo fotógrafa;fotógrafo fotógrafa
pilote pilote;pilot;piloto piloto;piloto piloto
serveur serveuse;waiter;camarero camarera;garçom garçonete
traducteur traductrice;translator;traductor traductora;tradutor tradutora
bijoutier bijoutière;jeweller;joyero joyera;joalheiro joalheira
chirurgien chirurgienne;surgeon;cirujano cirujana;cirurgião cirurgiã
électricien électricienne;electrician;electricista electricista;eletricista eletricista
menuisier menuisière;carpenter;carpintero carpintera;carpinteiro carpinteira
pêcheur pêcheuse;fisher;pescador pescadora;pescador pescadora
berger bergère;shepherd;pastor pastora;pastor pastora
gardien gardienne;caretaker;portero portera;zelador zeladora
bibliothécaire bibliothécaire;librarian;bibliotecario bibliotecaria;bibliotecário bibliotecária
vétérinaire vétérinaire;vet;veterinario veterinaria;veterinário veterinária
poète poète;poet;poeta poeta;poeta poeta"""

# French masculine [feminine]; English; Spanish masculine; Portuguese masculine
COLOURS = """rouge;red;rojo;vermelho
bleu;blue;azul;azul
noir;black;negro;preto
blanc blanche;white;blanco;branco
vert verte;green;verde;verde
jaune;yellow;amarillo;amarelo
gris grise;grey;gris;cinzento
rose;pink;rosado;rosado
brun brune;brown;pardo;pardo
violet violette;purple;morado;roxo
doré;golden;dorado;dourado
argenté;silver;plateado;prateado"""

QUALITIES = """neuf neuve;new;nuevo;novo
ancien ancienne;old;antiguo;antigo
propre;clean;limpio;limpo
cassé;broken;roto;quebrado
lourd;heavy;pesado;pesado
léger légère;light;ligero;leve
cher chère;expensive;caro;caro
fragile;fragile;frágil;frágil
solide;sturdy;sólido;sólido
magnifique;magnificent;magnífico;magnífico
rond;round;redondo;redondo
étroit;narrow;estrecho;estreito
large;wide;ancho;largo
moderne;modern;moderno;moderno
précieux précieuse;precious;precioso;precioso
bizarre;strange;extraño;estranho
rare;rare;raro;raro
sale;dirty;sucio;sujo
épais épaisse;thick;grueso;grosso
vide;empty;vacío;vazio
pratique;handy;práctico;prático
brillant;shiny;brillante;brilhante
minuscule;tiny;minúsculo;minúsculo
élégant;elegant;elegante;elegante
discret discrète;discreet;discreto;discreto
immense;huge;inmenso;imenso
identique;identical;idéntico;idêntico
carré;square;cuadrado;quadrado
usé;worn;gastado;gasto
original;original;original;original"""

TASTES = """frais fraîche;fresh;fresco;fresco
chaud;hot;caliente;quente
délicieux délicieuse;delicious;delicioso;delicioso
froid;cold;frío;frio
sucré;sweet;dulce;doce
salé;salty;salado;salgado
mûr;ripe;maduro;maduro
amer amère;bitter;amargo;amargo
grillé;grilled;asado;grelhado
épicé;spicy;picante;picante
savoureux savoureuse;tasty;sabroso;saboroso
tiède;lukewarm;tibio;morno
croustillant;crunchy;crujiente;crocante
sec sèche;dry;seco;seco
léger légère;light;ligero;leve
exquis exquise;exquisite;exquisito;requintado"""

SITES = """ancien ancienne;old;antiguo;antigo
célèbre;famous;famoso;famoso
tranquille;quiet;tranquilo;tranquilo
moderne;modern;moderno;moderno
abandonné;abandoned;abandonado;abandonado
immense;huge;inmenso;imenso
désert;deserted;desierto;deserto
magnifique;magnificent;magnífico;magnífico
bruyant;noisy;ruidoso;barulhento
voisin;nearby;vecino;vizinho
municipal;municipal;municipal;municipal
sombre;dark;oscuro;escuro
charmant;charming;encantador;encantador
lointain;faraway;lejano;distante
historique;historic;histórico;histórico
royal;royal;real;real
mystérieux mystérieuse;mysterious;misterioso;misterioso
paisible;peaceful;apacible;pacífico
ensoleillé;sunny;soleado;ensolarado
médiéval;medieval;medieval;medieval"""

MOODS = """content;happy;contento;contente
fatigué;tired;cansado;cansado
triste;sad;triste;triste
malade;ill;enfermo;doente
pressé;in_a_hurry;apurado;apressado
calme;calm;tranquilo;calmo
inquiet inquiète;worried;inquieto;inquieto
fier fière;proud;orgulloso;orgulhoso
prêt;ready;listo;pronto
jaloux jalouse;jealous;celoso;ciumento
surpris surprise;surprised;sorprendido;surpreso
sérieux sérieuse;serious;serio;sério
timide;shy;tímido;tímido
gentil gentille;kind;amable;gentil
courageux courageuse;brave;valiente;corajoso
absent;absent;ausente;ausente
curieux curieuse;curious;curioso;curioso
nerveux nerveuse;nervous;nervioso;nervoso
poli;polite;educado;educado
patient;patient;paciente;paciente
bavard;talkative;hablador;falador
généreux généreuse;generous;generoso;generoso
distrait distraite;absent-minded;distraído;distraído
drôle;funny;gracioso;engraçado
déçu;disappointed;decepcionado;decepcionado
honnête;honest;honesto;honesto
prudent;careful;prudente;prudente
têtu;stubborn;terco;teimoso
joyeux joyeuse;cheerful;alegre;alegre
silencieux silencieuse;silent;silencioso;silencioso
étonné;astonished;asombrado;espantado
furieux furieuse;furious;furioso;furioso"""

# French infinitive [present [participle]]; English base past; Spanish infinitive [present [past]]; Portuguese
THING_VERBS = """acheter achète;buy bought;comprar;comprar
chercher;look_for looked_for;buscar;procurar
vendre vend vendu;sell sold;vender;vender
trouver;find found;encontrar encuentra;encontrar
perdre perd perdu;lose lost;perder pierde;perder
garder;keep kept;guardar;guardar
réparer;repair repaired;arreglar;consertar
regarder;look_at looked_at;mirar;olhar
montrer;show showed;mostrar muestra;mostrar
choisir choisit choisi;choose chose;elegir elige eligió;escolher
oublier;forget forgot;olvidar;esquecer
porter;carry carried;llevar;levar
laver;wash washed;lavar;lavar
casser;break broke;romper;quebrar
cacher;hide hid;esconder;esconder
dessiner;draw drew;dibujar;desenhar
prêter;lend lent;prestar;emprestar
jeter jette;throw_away threw_away;tirar;descartar
nettoyer nettoie;clean cleaned;limpiar;limpar
apporter;bring brought;traer trae trajo;trazer traz trouxe
photographier;photograph photographed;fotografiar fotografía;fotografar
voler;steal stole;robar;roubar
ranger;put_away put_away;ordenar;arrumar
fermer;close closed;cerrar cierra;fechar
rendre rend rendu;give_back gave_back;devolver devuelve;devolver
décorer;decorate decorated;decorar;decorar
emballer;wrap wrapped;envolver envuelve;embrulhar
déplacer;move moved;mover mueve;mover
fabriquer;make made;fabricar;fabricar
examiner;examine examined;examinar;examinar
ramasser;pick_up picked_up;recoger;recolher
envoyer envoie;send sent;enviar envía;enviar
admirer;admire admired;admirar;admirar
collectionner;collect collected;coleccionar;colecionar"""

FOOD_VERBS = """manger;eat ate;comer;comer
préparer;prepare prepared;preparar;preparar
acheter achète;buy bought;comprar;comprar
goûter;taste tasted;probar prueba;provar
adorer;love loved;adorar;adorar
partager;share shared;compartir;partilhar
commander;order ordered;pedir pide pidió;pedir pede
couper;cut cut;cortar;cortar
servir sert servi;serve served;servir sirve sirvió;servir serve
cuisiner;cook cooked;cocinar;cozinhar
refuser;refuse refused;rechazar;recusar
détester;hate hated;detestar;detestar
dévorer;devour devoured;devorar;devorar
éplucher;peel peeled;pelar;descascar
mélanger;mix mixed;mezclar;misturar
griller;grill grilled;asar;grelhar
offrir offre offert;offer offered;ofrecer;oferecer
avaler;swallow swallowed;tragar;engolir
congeler congèle;freeze froze;congelar;congelar
savourer;savour savoured;saborear;saborear"""

PERSON_VERBS = """appeler appelle;call called;llamar;chamar
rencontrer;meet met;encontrar encuentra;encontrar
aider;help helped;ayudar;ajudar
inviter;invite invited;invitar;convidar
attendre attend attendu;wait_for waited_for;esperar;esperar
écouter;listen_to listened_to;escuchar;escutar
remercier;thank thanked;agradecer;agradecer
saluer;greet greeted;saludar;cumprimentar
chercher;look_for looked_for;buscar;procurar
accompagner;accompany accompanied;acompañar;acompanhar
embrasser;kiss kissed;besar;beijar
féliciter;congratulate congratulated;felicitar;felicitar
surveiller;watch watched;vigilar;vigiar
rassurer;reassure reassured;tranquilizar;tranquilizar
quitter;leave left;dejar;deixar
conseiller;advise advised;aconsejar;aconselhar
interroger;question questioned;interrogar;interrogar
critiquer;criticise criticised;criticar;criticar
consoler;comfort comforted;consolar consuela;consolar
suivre suit suivi;follow followed;seguir sigue siguió;seguir segue
protéger protège;protect protected;proteger;proteger
convaincre convainc convaincu;convince convinced;convencer;convencer
respecter;respect respected;respetar;respeitar
tromper;deceive deceived;engañar;enganar
soutenir soutient soutenu;support supported;apoyar;apoiar
gronder;scold scolded;reñir riñe riñó;repreender"""

PLACE_VERBS = """visiter;visit visited;visitar;visitar
traverser;cross crossed;cruzar;atravessar
quitter;leave left;dejar;deixar
chercher;look_for looked_for;buscar;procurar
admirer;admire admired;admirar;admirar
photographier;photograph photographed;fotografiar fotografía;fotografar
connaître connaît connu;know knew;conocer;conhecer
décrire décrit décrit;describe described;describir;descrever
découvrir découvre découvert;discover discovered;descubrir;descobrir
trouver;find found;encontrar encuentra;encontrar
filmer;film filmed;filmar;filmar
peindre peint peint;paint painted;pintar;pintar
restaurer;restore restored;restaurar;restaurar
explorer;explore explored;explorar;explorar
contourner;go_around went_around;rodear;contornar
apercevoir aperçoit aperçu;glimpse glimpsed;divisar;avistar
fréquenter;frequent frequented;frecuentar;frequentar
défendre défend défendu;defend defended;defender defiende;defender"""

ANIMAL_VERBS = """nourrir nourrit nourri;feed fed;alimentar;alimentar
caresser;stroke stroked;acariciar;acariciar
observer;observe observed;observar;observar
soigner;look_after looked_after;cuidar;cuidar
adopter;adopt adopted;adoptar;adotar
dresser;train trained;entrenar;treinar
chasser;chase chased;cazar;caçar
attraper;catch caught;atrapar;pegar
effrayer effraie;frighten frightened;asustar;assustar
promener promène;walk walked;pasear;passear
sauver;save saved;salvar;salvar
dessiner;draw drew;dibujar;desenhar
brosser;brush brushed;cepillar;escovar
libérer libère;free freed;liberar;libertar"""

# people do these: infinitive, present 3sg, past participle (all with avoir)
ACTIONS = """travailler;work worked;trabajar;trabalhar
dormir dort dormi;sleep slept;dormir duerme durmió;dormir dorme
chanter;sing sang;cantar;cantar
danser;dance danced;bailar;dançar
marcher;walk walked;caminar;caminhar
étudier;study studied;estudiar;estudar
courir court couru;run ran;correr;correr
jouer;play played;jugar juega;jogar
pleurer;cry cried;llorar;chorar
rire rit ri;laugh laughed;reír ríe rió;rir ri riu
voyager;travel travelled;viajar;viajar
nager;swim swam;nadar;nadar
parler;speak spoke;hablar;falar
crier;shout shouted;gritar;gritar
attendre attend attendu;wait waited;esperar;esperar
lire lit lu;read read;leer lee leyó;ler lê leu
réfléchir réfléchit réfléchi;think thought;reflexionar;refletir reflete
bavarder;chat chatted;charlar;conversar
jardiner;garden gardened;cultivar;jardinar
téléphoner;phone phoned;telefonear;telefonar
dîner;have_dinner had_dinner;cenar;jantar
déjeuner;have_lunch had_lunch;almorzar almuerza;almoçar
sourire sourit souri;smile smiled;sonreír sonríe sonrió;sorrir sorri
ronfler;snore snored;roncar;roncar
hésiter;hesitate hesitated;dudar;hesitar
mentir ment menti;lie lied;mentir miente mintió;mentir mente
plaisanter;joke joked;bromear;brincar
méditer;meditate meditated;meditar;meditar
patienter;wait_patiently waited_patiently;aguardar;aguardar
bricoler;tinker tinkered;trastear;remendar"""

# how or where an action is done, kept whole: French words with UPOS, English, Spanish, Portuguese
MANNERS = """beaucoup;a lot;mucho;muito
lentement;slowly;lentamente;lentamente
souvent;often;a menudo;frequentemente
rarement;rarely;raramente;raramente
trop;too much;demasiado;demais
tranquillement;quietly;tranquilamente;tranquilamente
rapidement;quickly;rápidamente;rapidamente
longtemps;for a long time;mucho tiempo;muito tempo
ensemble;together;juntos;juntos
doucement;gently;suavemente;suavemente
partout;everywhere;por todas partes;por toda parte
régulièrement;regularly;regularmente;regularmente
sérieusement;seriously;seriamente;seriamente
joyeusement;cheerfully;alegremente;alegremente
discrètement;discreetly;discretamente;discretamente
courageusement;bravely;valientemente;corajosamente
bruyamment;noisily;ruidosamente;ruidosamente
patiemment;patiently;pacientemente;pacientemente
prudemment;carefully;con cuidado;com cuidado
énormément;enormously;enormemente;enormemente
nerveusement;nervously;nerviosamente;nervosamente
ailleurs;elsewhere;en otro lugar;em outro lugar"""

# past times, future times, habits: `French (last word is the head); English; Spanish; Portuguese`
PAST_TIMES = """hier;yesterday;ayer;ontem
hier soir;last night;anoche;ontem à noite
ce matin;this morning;esta mañana;esta manhã
avant-hier;the day before yesterday;anteayer;anteontem
tout à l'heure;a while ago;hace un rato;há pouco
récemment;recently;recientemente;recentemente
autrefois;in the past;antaño;antigamente
cet après-midi;this afternoon;esta tarde;esta tarde
cet hiver;this winter;este invierno;este inverno
cet été;this summer;este verano;este verão"""
FUTURE_TIMES = """demain;tomorrow;mañana;amanhã
ce soir;tonight;esta noche;esta noite
bientôt;soon;pronto;logo
après-demain;the day after tomorrow;pasado mañana;depois de amanhã
demain matin;tomorrow morning;mañana por la mañana;amanhã de manhã
demain soir;tomorrow evening;mañana por la noche;amanhã à noite
cet automne;this autumn;este otoño;este outono
ce printemps;this spring;esta primavera;esta primavera
prochainement;shortly;próximamente;em breve
cette semaine;this week;esta semana;esta semana
cette nuit;tonight;esta noche;esta noite
cette année;this year;este año;este ano"""
WEEKDAYS = """lundi;Monday;lunes;segunda-feira
mardi;Tuesday;martes;terça-feira
mercredi;Wednesday;miércoles;quarta-feira
jeudi;Thursday;jueves;quinta-feira
vendredi;Friday;viernes;sexta-feira
samedi;Saturday;sábado;sábado
dimanche;Sunday;domingo;domingo"""
MONTHS = """janvier;January;enero;janeiro
février;February;febrero;fevereiro
mars;March;marzo;março
avril;April;abril;abril
mai;May;mayo;maio
juin;June;junio;junho
juillet;July;julio;julho
août;August;agosto;agosto
septembre;September;septiembre;setembro
octobre;October;octubre;outubro
novembre;November;noviembre;novembro
décembre;December;diciembre;dezembro"""

HOTELS = """Bellevue Ibis Beaurivage Mercure Continental Terminus Bristol Excelsior Lutetia Carlton Mirabeau
Régina Panorama Splendide Astoria Univers Concorde Majestic Victoria Colbert Molière Voltaire Lafayette
Méridien""".split()
STREETS = """Gambetta Pasteur Voltaire Jaurès Foch Clemenceau Diderot Lamartine Danton Mozart Descartes
Lavoisier Molière Ravel Zola Balzac Debussy Monet Verlaine Rimbaud Berlioz Ampère Courbet Cézanne Flaubert
Stendhal""".split()
ROOM_KINDS = """double;double;doble;duplo
simple;single;individual;individual
familial;family;familiar;familiar
calme;quiet;tranquilo;tranquilo
spacieux spacieuse;spacious;espacioso;espaçoso
climatisé;air-conditioned;climatizado;climatizado
confortable;comfortable;cómodo;confortável
moderne;modern;moderno;moderno"""
# with their article; services of a hotel
SERVICES = """la:f piscine;a swimming pool;una piscina;uma piscina
le:m parking;a car park;un aparcamiento;um estacionamento
le:m restaurant;a restaurant;un restaurante;um restaurante
le:m jardin;a garden;un jardín;um jardim
la:f terrasse;a terrace;una terraza;um terraço
le:m sauna;a sauna;una sauna;uma sauna
le:m bar;a bar;un bar;um bar
le:m garage;a garage;un garaje;uma garagem
la:f salle;a meeting room;una sala;uma sala
la:f laverie;a laundry;una lavandería;uma lavanderia
le:m gymnase;a gym;un gimnasio;um ginásio
le:m ascenseur;a lift;un ascensor;um elevador"""
EQUIPMENT = """baignoire:f;bathtub;bañera:f;banheira:f
télévision:f;television;televisión:f;televisão:f
balcon:m;balcony;balcón:m;varanda:f
douche:f;shower;ducha:f;ducha:f
cuisine:f;kitchen;cocina:f;cozinha:f
cheminée:f;fireplace;chimenea:f;lareira:f
réfrigérateur:m;refrigerator;frigorífico:m;frigorífico:m
coffre:m;safe;caja_fuerte:f;cofre:m
ventilateur:m;fan;ventilador:m;ventilador:m"""
PAYMENTS = """par carte;by card;con tarjeta;com cartão
en espèces;in cash;en efectivo;em dinheiro
par chèque;by cheque;con cheque;com cheque
par virement;by bank transfer;por transferencia;por transferência"""
WEATHER = """beau;nice;bueno;bom
froid;cold;frío;frio
chaud;hot;caluroso;quente
gris;grey;gris;cinzento
doux;mild;suave;ameno
sec;dry;seco;seco"""
FEELINGS = """joie:f;joy;alegría:f;alegria:f
surprise:f;surprise;sorpresa:f;surpresa:f
bonheur:m;happiness;felicidad:f;felicidade:f
chance:f;luck;suerte:f;sorte:f
plaisir:m;pleasure;placer:m;prazer:m"""
WOES = """honte:f;shame;vergüenza:f;vergonha:f
désastre:m;disaster;desastre:m;desastre:m
malheur:m;misfortune;desgracia:f;desgraça:f
catastrophe:f;catastrophe;catástrofe:f;catástrofe:f
tristesse:f;sadness;tristeza:f;tristeza:f
injustice:f;injustice;injusticia:f;injustiça:f"""
DISEASES = """grippe:f;flu;gripe:f;gripe:f
fièvre:f;fever;fiebre:f;febre:f
toux:f;cough;tos:f;tosse:f
migraine:f;migraine;migraña:f;enxaqueca:f
allergie:f;allergy;alergia:f;alergia:f
rhume:m;cold;resfriado:m;resfriado:m
angine:f;sore_throat;angina:f;angina:f"""
SUBJECTS = """musique:f;music;música:f;música:f
peinture:f;painting;pintura:f;pintura:f
politique:f;politics;política:f;política:f
histoire:f;history;historia:f;história:f
nature:f;nature;naturaleza:f;natureza:f
cuisine:f;cooking;cocina:f;culinária:f
football:m;football;fútbol:m;futebol:m
voyage:m;travel;viaje:m;viagem:f
poésie:f;poetry;poesía:f;poesia:f
littérature:f;literature;literatura:f;literatura:f
mathématique:f;mathematics;matemática:f;matemática:f
danse:f;dance;danza:f;dança:f
philosophie:f;philosophy;filosofía:f;filosofia:f
géographie:f;geography;geografía:f;geografia:f
escalade:f;climbing;escalada:f;escalada:f
couture:f;sewing;costura:f;costura:f
photographie:f;photography;fotografía:f;fotografia:f
astronomie:f;astronomy;astronomía:f;astronomia:f
économie:f;economics;economía:f;economia:f
tennis:m;tennis;tenis:m;tênis:m"""
